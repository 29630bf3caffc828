// Writes what Python needs of each contract, ABI, creation bytecode, and the code it
// becomes with the places of its immutable values, to assets/contracts/NAME.json.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const target = new URL("../../assets/contracts/", import.meta.url);
mkdirSync(target, { recursive: true });
for (const name of process.argv.slice(2)) {
  const built = JSON.parse(readFileSync(new URL(`out/${name}.sol/${name}.json`, import.meta.url)));
  const immutables = Object.values(built.deployedBytecode.immutableReferences ?? {})
    .flat()
    .map(({ start, length }) => [start, length])
    .sort(([a], [b]) => a - b);
  const { bytecode, deployedBytecode: runtime } = built;
  const artefact = { abi: built.abi, bytecode: bytecode.object, runtime: runtime.object, immutables };
  writeFileSync(new URL(`${name}.json`, target), JSON.stringify(artefact, null, 1) + "\n");
}
