// Runs the library's own tests in a browser's Python, here under Node: no thread, no socket, no network.
// node --experimental-wasm-jspi run.mjs <folder with node_modules and wheels> <root of the repository> <pytest arguments>
// The option is on in today's browsers; with it, asyncio.run waits as it does elsewhere.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [home, root, ...options] = process.argv.slice(2);
const { loadPyodide } = await import(
  pathToFileURL(join(home, "node_modules/pyodide/pyodide.mjs")).href
);
const pyodide = await loadPyodide({ env: { HOME: "/home/pyodide", PYTHONDONTWRITEBYTECODE: "1" } });

const extractDir = pyodide.runPython("import site; site.getsitepackages()[0]");
for (const wheel of await readdir(join(home, "wheels"))) {
  const bytes = new Uint8Array(await readFile(join(home, "wheels", wheel)));
  pyodide.unpackArchive(bytes, "wheel", { extractDir });
}
for (const folder of ["src", "tests"]) {
  pyodide.FS.mkdirTree(`/repository/${folder}`);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: join(root, folder) }, `/repository/${folder}`);
}

pyodide.globals.set("options", options);
process.exitCode = await pyodide.runPythonAsync(`
import os, sys
import pytest

os.chdir("/repository")
sys.path.insert(0, "/repository/src")
int(pytest.main(options.to_py()))
`);
