import { readlink } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import type { GlobalOptions, ProgramParts, Served } from '#cli/program-parts.ts';
import { runProgram } from '#cli/program.ts';
import type { Terminal } from '#cli/terminal/terminal.ts';
import { mayHaveLogins } from '#daemon/login-files.ts';
import { type Configuration, daemonDefaults, readConfiguration } from '#daemon/configuration/configuration.ts';
import { enterDirectory, isInside, userOnHost } from '#host/inside-namespaces.ts';
import { closeInheritedDescriptors } from '#host/jail/inherited-descriptors.ts';
import { isServed } from '#host/socket/is-served.ts';
import { programDirectory as repo, programVersion } from '#host/program-files.ts';

/**
 * The program. The CLI is a client of the admin socket; here it gets what it needs to have one served: `podvm run`
 * joins the process that serves the state directory already, starts one in the background, or serves it itself for as long
 * as it runs. Whatever only some commands need is imported when they run, so that `podvm ps` starts fast.
 */
/** Date of the files in a bundle, in seconds since 1970 (https://reproducible-builds.org/specs/source-date-epoch/). */
const epoch = Number(process.env['SOURCE_DATE_EPOCH'] ?? Date.UTC(2000, 0) / 1000);
const configure = (options: GlobalOptions): Configuration => readConfiguration(options, process.env, repo);

enterDirectory();
closeInheritedDescriptors(process.env['NODE_EXTRA_CA_CERTS']); // programs that we start would have it, too

/** Machines that outlive this process are its children or its connections, and would keep its event loop alive. */
const keeps = { machines: false };
const outputGone = new AbortController();
const terminal: Terminal = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  hasColour: process.stdout.isTTY && process.env['NO_COLOR'] === undefined,
  outputGone: outputGone.signal,
};
// EPIPE of a reader that has left, EIO of a terminal that is closed: each command decides what that means.
process.stdout.on('error', (error) => outputGone.abort(error));
process.stderr.on('error', () => undefined); // there is no terminal left to write to

const parts: ProgramParts = {
  terminal,
  version: await programVersion(repo),
  versions: async (options) => {
    const { readVersions } = await import('#daemon/node/versions.ts');
    return await readVersions(configure(options), parts.version);
  },
  environment: process.env,
  checkManifests: async (files) => {
    const { parseManifests, problemText } = await import('#pod/manifest/manifest.ts');
    return parseManifests(files).warnings.map(problemText);
  },
  namedImages: async (files, signal) => {
    const { namedImages } = await import('#pod/manifest/named-images.ts');
    return await namedImages(files, signal);
  },
  userLogins: async (images, authFile, signal) => {
    const user = { environment: process.env, uid: userOnHost(), ...(authFile === undefined ? {} : { authFile }) };
    if (!(await mayHaveLogins(user))) return { logins: [], warnings: [] };
    const { findLogins } = await import('#daemon/user-logins.ts');
    return await findLogins(images, user, signal);
  },
  login: async (wish, signal) => {
    const { login } = await import('#daemon/login-command.ts');
    await login(wish, signal);
  },
  logout: async (wish, signal) => {
    const { logout } = await import('#daemon/login-command.ts');
    await logout(wish, signal);
  },
  signals: process,
  keepsHangUp: process.env['PODVM_KEEPS_HANG_UP'] === '1',
  leave: (code) => process.exit(code),
  socketPath: (options) => configure(options).socketPath,
  ensureServed: async (options, purpose, ends) => {
    const config = configure(options);
    if (purpose === 'storedImages') await parts.serveLeftPods(options, ends.any); // whose images are in use
    if (await isServed(config.socketPath)) return servedBy(config.socketPath);
    const write = (line: string) => process.stderr.write(line);
    const startsNode = config.startsNode && purpose !== 'podsHere' && !isInside;
    if (purpose === 'storedImages' || !startsNode) await enterNamespaces(config);
    if (purpose === 'storedImages') {
      const { serveStoredImages } = await import('#daemon/background/serve-stored-images.ts');
      return await serveStoredImages(config, write);
    }
    if (startsNode) {
      const { startBackground } = await import('#daemon/background/start-background.ts');
      await startBackground(config, write, ends.any);
      return servedBy(config.socketPath);
    }
    const { serveHere } = await import('#daemon/background/serve-here.ts');
    const here = purpose === 'images' ? 'images' : 'pods';
    return { socketPath: config.socketPath, ...(await serveHere(config, here, write, ends)) };
  },
  serveLeftPods: async (options, signal) => {
    const config = configure(options);
    if (!config.startsNode || isInside || (await isServed(config.socketPath))) return; // most commands load nothing of a node
    const { serveLeftPods } = await import('#daemon/background/left-pods.ts');
    await serveLeftPods(config, (line) => process.stderr.write(line), signal);
  },
  knownPods: async (options) => {
    const config = configure(options);
    await parts.serveLeftPods(options, new AbortController().signal);
    if (await isServed(config.socketPath)) return servedBy(config.socketPath);
    const { serveEndedPods } = await import('#daemon/node/ended-pods.ts');
    return await serveEndedPods(config, (line) => process.stderr.write(line));
  },
  orphans: async (options) => {
    const { findOrphans } = await import('#sandbox/recovery/orphans.ts');
    return await findOrphans(configure(options).root);
  },
  endOrphans: async (options) => {
    const { endOrphans } = await import('#daemon/background/end-orphans.ts');
    await enterNamespaces(configure(options));
    return await endOrphans(configure(options), (line) => process.stderr.write(line));
  },
  setup: async ({ upgrade, kernel, sbom, bundle, from, config: file, ...options }, { any: signal }) => {
    if (sbom) {
      const { makeSbom } = await import('#setup/bundle/sbom.ts');
      return await makeSbom({ root: configure(options).root, repo, version: parts.version });
    }
    const { requireRoot } = await import('#daemon/background/serve-here.ts');
    const { bundleCommand, setupCommand, setupFromCommand } = await import('#daemon/setup-command.ts');
    const config = await configureSetup(file, options);
    const setting = { config, write: (line: string) => process.stderr.write(line), signal };
    if (bundle !== undefined) return await bundleCommand(setting, resolve(bundle), { version: parts.version, epoch });
    if (upgrade || kernel !== undefined || from !== undefined) requireRoot('change the parts of machines');
    if (from !== undefined) return await setupFromCommand(setting, resolve(from), parts.version);
    return await setupCommand(setting, { upgrade, ...(kernel === undefined ? {} : { kernel }) });
  },
  install: async (program, { dryRun: isDry, restart: restarts, ...options }, { any: signal }) => {
    const { containerdPlaces, installContainerd } = await import('#daemon/containerd/install-containerd.ts');
    const { installK3s, k3sPlaces } = await import('#daemon/containerd/install-k3s.ts');
    const { requireRoot } = await import('#daemon/background/serve-here.ts');
    if (!isDry) requireRoot(`install podvm in ${program}`);
    const podvm = { shimSocketPath: configure(options).shimSocketPath, version: parts.version };
    const choices = { isDry, restarts };
    return program === 'k3s'
      ? await installK3s(podvm, choices, k3sPlaces, signal)
      : await installContainerd(podvm, choices, containerdPlaces, signal);
  },
  uninstall: async ({ state, ...options }, { any: signal }) => {
    const { uninstallCommand } = await import('#daemon/uninstall-command.ts');
    await enterNamespaces(configure(options));
    return await uninstallCommand(configure(options), { state }, (line) => process.stderr.write(line), signal);
  },
  daemon: async ({ config: file, background, ...options }) => {
    if (background) {
      await enterNamespaces(configure(options));
      const { backgroundCommand } = await import('#daemon/background/background-node.ts');
      keeps.machines = true;
      const config = configure(options);
      return await backgroundCommand(config, process, { serveCommand: await commandServerOf(config) });
    }
    const { daemonCommand } = await import('#daemon/daemon-command.ts');
    const config = await configureDaemon(file, options);
    keeps.machines = true;
    await daemonCommand(config, parts.version, process, { ...parts, serveCommand: await commandServerOf(config) });
  },
  doctor: async ({ json, accelerator, config: file, ...options }, { any: signal }) => {
    const { doctorCommand } = await import('#daemon/doctor/doctor.ts');
    const config = file === undefined ? configure(options) : await configureDaemon(file, options);
    const host = { config, version: parts.version, write: (line: string) => process.stderr.write(line) };
    return await doctorCommand(host, { json, accelerator }, signal);
  },
  serveDashboard: async (socketPath, port) => {
    const { serveDashboard } = await import('#dashboard/serve-dashboard.ts');
    return await serveDashboard({ socketPath, port });
  },
  supportBundle: async ({ output, config: path, logs, ofNode, ...options }, { any: signal }) => {
    const { supportBundle } = await import('#daemon/support/support-bundle.ts');
    const { readConfigFile } = await import('#daemon/configuration/config-file.ts');
    const config = path === undefined ? configure(options) : await configureDaemon(path, options);
    const file = path === undefined ? {} : await readConfigFile(path);
    const write = (line: string) => process.stderr.write(line);
    const { version } = parts;
    await enterNamespaces(config);
    return await supportBundle(
      { config, file, env: process.env, version, write, output: resolve(output), logs, ofNode },
      signal,
    );
  },
  diskUsage: async (options, { any: signal }) => {
    const { readDiskUsage } = await import('#daemon/node/disk-usage.ts');
    await enterNamespaces(configure(options));
    return await readDiskUsage(configure(options).root, signal);
  },
};

/**
 * Runs the command again as root of the namespaces of this user, and ends with its exit code. Does nothing for root, and
 * inside.
 */
async function enterNamespaces(config: Configuration): Promise<void> {
  if (process.getuid?.() === 0) return;
  if (process.stdin.readableEnded) {
    throw new PodvmError('unsupported', 'Cannot serve what standard input said in this command: only root can', {
      fix: 'Write it to a file, or leave out --no-daemon.',
    });
  }
  const { runInside } = await import('#daemon/rootless/run-inside.ts');
  process.exit((await runInside(config, process.argv.slice(2))).code);
}

/** Runs commands for their callers in this process. */
async function commandServerOf({ socketPath }: Configuration): Promise<(caller: WebSocket) => Promise<void>> {
  const { serveCommand } = await import('#cli/served/serve-command.ts');
  const { programKey } = await import('#host/program-key.ts');
  const node = {
    key: await programKey(repo), // now, since an upgrade may replace the file
    version: parts.version,
    mountNamespace: await readlink('/proc/self/ns/mnt'),
    socketPath,
    socketOf: (options: GlobalOptions, env: NodeJS.ProcessEnv) => readConfiguration(options, env, repo).socketPath,
    mayHaveLogins: (environment: NodeJS.ProcessEnv) => mayHaveLogins({ environment, uid: userOnHost() }),
  };
  return (caller) => serveCommand(caller, node);
}

/** The configuration of a daemon, with the settings of its file. */
async function configureDaemon(file: string | undefined, options: Parameters<typeof configure>[0]) {
  const { readConfigFile } = await import('#daemon/configuration/config-file.ts');
  const inFile = { ...daemonDefaults, ...(file === undefined ? {} : await readConfigFile(file)) };
  return readConfiguration(options, process.env, repo, inFile);
}

/** The configuration of set-up with the settings of a daemon's file, which the daemon must be able to use. */
async function configureSetup(file: string | undefined, options: Parameters<typeof configure>[0]) {
  if (file === undefined) return configure(options);
  await configureDaemon(file, options);
  const { readConfigFile } = await import('#daemon/configuration/config-file.ts');
  return readConfiguration(options, process.env, repo, await readConfigFile(file));
}

/** Another process: nothing is to be undone here. */
const servedBy = (socketPath: string): Served => ({ socketPath, [Symbol.asyncDispose]: () => Promise.resolve() });

process.exitCode = await runProgram(process.argv.slice(2), parts);
if (keeps.machines) process.exit();
