// Compiles src/*.sol with the pinned solc and writes one artifact a contract: npm run build.
// A directory may be named to write to: node build.js /tmp/artifacts
"use strict";

const fs = require("fs");
const path = require("path");
const solc = require("solc");

const PUBLISHED = [
  "MemberRegistry",
  "AnchorRegistry",
  "CloseRegistry",
  "SettlementRegistry",
  "OmissionRegistry",
  "GovernanceQuorum",
];
// Paris is the newest EVM version that every permissioned network here runs (no PUSH0).
const SETTINGS = {
  evmVersion: "paris",
  optimizer: { enabled: true, runs: 1000 },
  viaIR: false,
};

function readSources(directory) {
  const names = fs.readdirSync(directory).filter((name) => name.endsWith(".sol")).sort();
  return Object.fromEntries(
    names.map((name) => [`src/${name}`, { content: fs.readFileSync(path.join(directory, name), "utf8") }]),
  );
}

function findImport(name) {
  const file = path.join(__dirname, "node_modules", name);
  return fs.existsSync(file) ? { contents: fs.readFileSync(file, "utf8") } : { error: `${name} not found` };
}

function compile() {
  const input = {
    language: "Solidity",
    sources: readSources(path.join(__dirname, "src")),
    settings: {
      ...SETTINGS,
      outputSelection: {
        "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences"] },
      },
    },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
  for (const problem of output.errors || []) console.error(problem.formattedMessage);
  if ((output.errors || []).length > 0) throw new Error("the compiler has complaints");
  return output.contracts;
}

function artifact(contracts, name) {
  const sourceName = `src/${name}.sol`;
  const { abi, evm } = contracts[sourceName][name];
  return {
    contractName: name,
    sourceName,
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    deployedBytecode: `0x${evm.deployedBytecode.object}`,
    immutableReferences: Object.values(evm.deployedBytecode.immutableReferences).flat(),
    compiler: `solc ${solc.version()}`,
    settings: SETTINGS,
  };
}

const target = path.resolve(process.argv[2] || path.join(__dirname, "artifacts"));
fs.mkdirSync(target, { recursive: true });
const contracts = compile();
for (const name of PUBLISHED) {
  const file = path.join(target, `${name}.json`);
  fs.writeFileSync(file, `${JSON.stringify(artifact(contracts, name), null, 2)}\n`);
  console.log(`${name}: ${file}`);
}
