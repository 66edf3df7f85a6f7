import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import type { GlobalOptions, ProgramParts } from '#cli/program.ts';
import { runProgram } from '#cli/program.ts';
import type { Terminal } from '#cli/terminal.ts';
import { type Configuration, readConfiguration } from '#daemon/configuration.ts';

/**
 * The program. The CLI is a client of the admin socket; here it gets what it needs to have one served: `podvm run`
 * joins the process that serves the state directory already, or serves it itself for as long as it runs. Whatever
 * only some commands need is imported when they run, so that `podvm ps` starts fast.
 */
const repo = join(import.meta.dirname, '..');
const configure = (options: GlobalOptions): Configuration => readConfiguration(options, process.env, repo);

const terminal: Terminal = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  hasColour: process.stdout.isTTY && process.env['NO_COLOR'] === undefined,
};
// `podvm logs | head` ends when head has read enough.
process.stdout.on('error', () => process.exit(0));

const parts: ProgramParts = {
  terminal,
  version: await readVersion(),
  socketPath: (options) => configure(options).socketPath,
  ensureServed: async (options, purpose) => {
    const { isServed } = await import('#host/is-served.ts');
    const config = configure(options);
    if (await isServed(config.socketPath)) return { [Symbol.asyncDispose]: () => Promise.resolve() };
    const { serveHere } = await import('#daemon/serve-here.ts');
    return await serveHere(config, purpose, (line) => process.stderr.write(line));
  },
  setup: async ({ upgrade, ...options }) => {
    const { setupCommand } = await import('#daemon/setup-command.ts');
    return await setupCommand(configure(options), upgrade, (line) => process.stderr.write(line));
  },
  daemon: async ({ config: file, ...options }) => {
    const { daemonCommand } = await import('#daemon/daemon-command.ts');
    const { readConfigFile } = await import('#daemon/config-file.ts');
    const inFile = { log: 'info', console: 'off', ...(file === undefined ? {} : await readConfigFile(file)) };
    await daemonCommand(readConfiguration(options, process.env, repo, inFile), parts.version, process);
  },
  doctor: async ({ json, ...options }) => {
    const { doctorCommand } = await import('#daemon/doctor.ts');
    return await doctorCommand(configure(options), json, (line) => process.stderr.write(line));
  },
};

async function readVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(join(repo, 'package.json'), 'utf8')) as { version: string };
  return version;
}

process.exitCode = await runProgram(process.argv.slice(2), parts);
