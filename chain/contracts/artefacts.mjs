// Writes what Python needs of each contract, ABI and creation bytecode, to assets/contracts/NAME.json.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const target = new URL("../../assets/contracts/", import.meta.url);
mkdirSync(target, { recursive: true });
for (const name of process.argv.slice(2)) {
  const built = JSON.parse(readFileSync(new URL(`out/${name}.sol/${name}.json`, import.meta.url)));
  const artefact = { abi: built.abi, bytecode: built.bytecode.object };
  writeFileSync(new URL(`${name}.json`, target), JSON.stringify(artefact, null, 1) + "\n");
}
