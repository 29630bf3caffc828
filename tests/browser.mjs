// Unpack the Chromium of the npm package @sparticuz/chromium, and axe.min.js of axe-core beside it:
// node tests/browser.mjs FOLDER, where both are installed.
import { execFileSync } from "node:child_process";
import { copyFileSync, createReadStream, createWriteStream, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = resolve(process.argv[2]);
const packed = join(folder, "node_modules", "@sparticuz", "chromium", "bin");

async function unpack(name, mode) {
  const out = join(folder, name);
  await pipeline(createReadStream(join(packed, `${name}.br`)), createBrotliDecompress(), createWriteStream(out, { mode }));
  return out;
}

for (const name of ["al2023.tar", "fonts.tar"]) { // lib/: what it links to; fonts/: one font, for machines without any
  const archive = await unpack(name, 0o644);
  execFileSync("tar", ["-xf", archive, "-C", folder]);
  rmSync(archive);
}
const places = `<dir>${join(folder, "fonts")}</dir><dir>/usr/share/fonts</dir><cachedir>${join(folder, "cache")}</cachedir>`;
writeFileSync(join(folder, "fonts.conf"), `<?xml version="1.0"?>\n<fontconfig>${places}</fontconfig>\n`);
copyFileSync(join(folder, "node_modules", "axe-core", "axe.min.js"), join(folder, "axe.min.js"));
await unpack("chromium", 0o755); // last: whoever finds it finds the rest
rmSync(join(folder, "node_modules"), { recursive: true });
