import { createReadStream, existsSync } from 'node:fs';
import type { Command } from 'commander';
import { PodvmError } from '#base/errors.ts';
import type { ProgramParts } from '../program-parts.ts';
import { manifestsIn, readFiles, readText } from './read-files.ts';
import type { RunOptions } from './run-command.ts';
import { requireTerminal } from '../terminal/terminal-input.ts';
import { type Terminal, write } from '../terminal/terminal.ts';
import type { Environment } from './container-environment.ts';
import { podOfImage, type PodObject } from './pod-of-image.ts';
import { refuseFlags } from './refused-flags.ts';
import { parseFileWords, refuseImageFlags, type RunFlags } from './run-options.ts';
import { whatIsNamed } from './run-words.ts';

/** A run as `podvm run`'s command line describes it. */
export interface RunPlan extends Omit<RunOptions, 'imageNames'> {
  /** The flags, from any place on the command line. */
  readonly flags: RunFlags;
  /** Images that the command line names; undefined: files name them. */
  readonly images?: readonly string[];
}

/** What a command line is read with. */
interface RunSetting extends Pick<ProgramParts, 'terminal' | 'environment' | 'elsewhere'> {
  readonly command: Command;
}

/** Whether the run needs files, input or output of its caller, or the caller as its node. */
const needsOwnProcess = ({ file, envFile, volume, mount, interactive, tty, dryRun, daemon }: RunFlags): boolean =>
  [file, envFile, volume, mount].some((given) => given !== undefined) ||
  [interactive, tty, dryRun].includes(true) ||
  !daemon;

/** Name of the Pod that flags make, in the diagnostics of its fields. */
const madeFile = '<flags>';

/**
 * Reads the command line, and every file that it names, before anything is set up or started. Errors: `invalid`,
 * `unsupported`, and commander's for the options after a file.
 */
export async function planRun(
  words: readonly string[],
  flags: RunFlags,
  { command, terminal, environment, elsewhere }: RunSetting,
): Promise<RunPlan> {
  refuseFlags(flags);
  if (needsOwnProcess(flags)) elsewhere?.refuse();
  const [first, ...rest] = words;
  const twice = () => command.error(`error: -f names what to run, and so does '${first}'; use one of the two`);
  if (flags.file !== undefined && first !== undefined) return twice();
  if (flags.file !== undefined) {
    refuseImageFlags(command, flags.file[0] ?? '');
    return await filesPlan(await manifestsIn(flags.file), flags, terminal);
  }
  if (first === undefined) return command.error("error: missing required argument 'image'");
  if (!flags.dryRun && command.getOptionValueSource('output') === 'cli') {
    return command.error('error: -o is the form of --dry-run, which is missing');
  }
  const named = whatIsNamed(first, rest, elsewhere?.isFile);
  if (named.kind === 'files') {
    elsewhere?.refuse();
    const after = parseFileWords(command, named.words);
    const all = after.opts<RunFlags>();
    refuseFlags(all);
    if (all.file !== undefined) return twice();
    return await filesPlan(after.args, all, terminal);
  }
  return await imagePlan(named, flags, { terminal, environment });
}

async function imagePlan(
  { image, words }: { readonly image: string; readonly words: readonly string[] },
  flags: RunFlags,
  { terminal, environment }: { readonly terminal: Terminal; readonly environment: Environment },
): Promise<RunPlan> {
  const { pod, mustExist, images } = podOfImage(flags, {
    image,
    words,
    environment,
    envFiles: await readEnvFiles(flags['envFile'] as readonly string[] | undefined), // SAFE: as it is declared
  });
  for (const path of mustExist) requirePath(path);
  const text = flags.dryRun && flags.output !== 'json' ? await yamlOf(pod) : `${JSON.stringify(pod, null, 2)}\n`;
  const input = { takesInput: flags['interactive'] === true, hasTerminal: flags['tty'] === true };
  const isLent = input.takesInput && input.hasTerminal && !flags.dryRun && !flags.detach;
  if (isLent) requireTerminal(terminal, 'the container');
  return { files: [{ name: madeFile, text }], ...optionsOf(flags), isOfImage: true, input, flags, images };
}

async function yamlOf(pod: PodObject): Promise<string> {
  const { stringify } = await import('../yaml.ts'); // takes longer than all else that makes the text
  return stringify(pod, { lineWidth: 0 });
}

/** Prints the Pod of `--dry-run` if its manifest is valid. Errors: those of the manifest. */
export async function printPlan(
  { files, flags }: RunPlan,
  { terminal, checkManifests }: Pick<ProgramParts, 'terminal' | 'checkManifests'>,
): Promise<void> {
  for (const warning of await checkManifests(files)) await write(terminal.stderr, `podvm: warning: ${warning}\n`);
  if (flags.network !== 'cni') {
    await write(
      terminal.stderr,
      `podvm: warning: a Pod does not name its network: run it with --network ${flags.network}, too\n`,
    );
  }
  for (const { text } of files) await write(terminal.stdout, text);
}

async function filesPlan(names: readonly string[], flags: RunFlags, terminal: Terminal): Promise<RunPlan> {
  const files = await readFiles(names, terminal);
  return { files, ...optionsOf(flags), isOfImage: false, flags };
}

const optionsOf = ({ network, verbose, detach, rm, quiet }: RunFlags) => ({
  network,
  verbose,
  quiet,
  detach,
  removeAtEnd: rm,
});

async function readEnvFiles(names: readonly string[] = []): Promise<ReadonlyMap<string, string>> {
  const texts = new Map<string, string>();
  for (const name of names)
    texts.set(name, await readText(name, createReadStream(name), 'Give --env-file a readable file of variables.'));
  return texts;
}

function requirePath(path: string): void {
  if (existsSync(path)) return;
  throw new PodvmError('notFound', `Cannot use --mount: the host has no ${path}`, {
    fix: 'Create it, or use -v, which makes a directory where there is nothing.',
  });
}
