import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError, messageOf, type ErrorKind } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { defaultEnv, run, type RunResult, signalOf, tailOf } from '#host/process/run.ts';
import {
  errorSchema,
  maxAnswerBytes,
  resultSchema,
  type CniResult,
  type Conflist,
  type PluginConfig,
} from './cni-schema.ts';

/** The CNI client: runs a chain of plugins as sections 2 to 5 of the specification say. */

/** One attachment of one container to one network; the same for ADD, CHECK and DEL. */
export interface ChainCall {
  readonly conflist: Conflist;
  readonly containerId: string;
  /** Path of the netns; DEL runs also when it no longer exists. */
  readonly netns: string;
  readonly ifName: string;
  /** CNI_ARGS: `Key=Value`. */
  readonly args: Readonly<Record<string, string>>;
  /** Given as `runtimeConfig` to the plugins that declare the capability. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly pluginDirs: readonly string[];
  /** Timeout of each plugin, in `ms`. */
  readonly timeoutMs: number;
}

/**
 * Runs ADD through the chain, starting from a previous result if there is one, and returns the last plugin's result.
 * Runs nothing unless every plugin is installed. After an error, `deleteChain` undoes what was done.
 */
export async function addChain(call: ChainCall, signal: AbortSignal, previous?: CniResult): Promise<CniResult> {
  let result = previous;
  await findPlugins(typesOf(call.conflist), call.pluginDirs);
  for (const plugin of call.conflist.plugins) result = await execute(call, 'ADD', plugin, result, signal);
  if (!result) throw new PodvmError('corrupt', `Cannot connect to network ${call.conflist.name}: no result`);
  return result;
}

/**
 * Runs DEL through the chain in reverse order, for every plugin, and throws the failures at the end. A plugin that fails
 * is tried once more: after an interrupted ADD, Debian's `bridge` fails on the iptables chain that it had not made yet,
 * and succeeds the second time. A missing plugin is skipped when ADD did not finish: it never ran.
 */
export async function deleteChain(call: ChainCall, added: CniResult | undefined, signal: AbortSignal): Promise<void> {
  let left: readonly PluginConfig[] = call.conflist.plugins.toReversed();
  let failures: unknown[] = [];
  for (let attempt = 1; attempt <= deleteAttempts && left.length > 0; attempt += 1) {
    const failed: PluginConfig[] = [];
    failures = [];
    for (const plugin of left) {
      if (added === undefined && (await lookUp(plugin.type, call.pluginDirs)) === undefined) continue;
      await execute(call, 'DEL', plugin, added, signal).catch((error: unknown) => {
        failed.push(plugin);
        failures.push(error);
      });
    }
    left = failed;
  }
  if (left.length === 0) return;
  throw new PodvmError(
    'internal',
    `Cannot disconnect ${call.containerId} from network ${call.conflist.name}: ${failures.map(messageOf).join('; ')}`,
    { cause: failures[0] },
  );
}

const deleteAttempts = 2;

/** Returns why the network's plugins do not support CHECK (spec, "Section 1" and "CHECK"); undefined if they do. */
export function whyNoCheck({ cniVersion, disableCheck }: Conflist): string | undefined {
  if (cniVersion.startsWith('0.3.')) return `CNI ${cniVersion} has no CHECK`;
  return String(disableCheck) === 'true' ? 'the network disables CHECK (disableCheck)' : undefined;
}

/**
 * Runs CHECK through the chain, in ADD's order, up to the first plugin that finds its work damaged or undone, and throws
 * that plugin's error. Only for networks for which `whyNoCheck` gives no reason.
 */
export async function checkChain(call: ChainCall, added: CniResult, signal: AbortSignal): Promise<void> {
  await findPlugins(typesOf(call.conflist), call.pluginDirs);
  for (const plugin of call.conflist.plugins) await execute(call, 'CHECK', plugin, added, signal);
}

/** A network and its valid attachments. */
export interface CollectCall extends Pick<ChainCall, 'conflist' | 'pluginDirs' | 'timeoutMs'> {
  readonly validAttachments: readonly { readonly containerID: string; readonly ifname: string }[];
}

/**
 * Runs GC through the chain: each plugin frees what it holds for attachments that no longer exist. Does nothing for a
 * network whose version is older than 1.1 or that disables GC. Runs every plugin and throws the failures at the end.
 */
export async function collectChain(call: CollectCall, signal: AbortSignal): Promise<void> {
  const { conflist, validAttachments } = call;
  if (conflist.cniVersion !== '1.1.0' || String(conflist.disableGC) === 'true') return;
  const failures: unknown[] = [];
  for (const plugin of conflist.plugins) {
    const input = { ...plugin, 'cni.dev/valid-attachments': validAttachments };
    const whole: ChainCall = { ...call, containerId: '', netns: '', ifName: '', args: {}, capabilities: {} };
    await execute(whole, 'GC', input, undefined, signal).catch((error: unknown) => failures.push(error));
  }
  if (failures.length === 0) return;
  throw new PodvmError(
    'internal',
    `Cannot collect what is left of network ${conflist.name}: ${failures.map(messageOf).join('; ')}`,
    {
      cause: failures[0],
    },
  );
}

type Command = 'ADD' | 'DEL' | 'CHECK' | 'GC';

async function execute(
  call: ChainCall,
  command: Command,
  plugin: PluginConfig,
  prevResult: CniResult | undefined,
  signal: AbortSignal,
): Promise<CniResult | undefined> {
  const what = `CNI plugin ${plugin.type} (${command}, network ${call.conflist.name})`;
  const answer = await run(await find(plugin.type, call.pluginDirs), [], {
    signal,
    timeoutMs: call.timeoutMs,
    maxOutputBytes: maxAnswerBytes,
    okCodes: 'any',
    input: JSON.stringify(pluginInput(call, plugin, prevResult)),
    env: environment(call, command),
  });
  if (answer.code !== 0) throw pluginError(command, what, answer);
  if (command !== 'ADD') return undefined;
  const said = json(what, answer.stdout);
  // valibot takes an array for an object.
  const parsed = v.safeParse(resultSchema, Array.isArray(said) ? undefined : said);
  if (parsed.success) return parsed.output;
  throw new PodvmError('corrupt', `Cannot use the answer of ${what}: ${v.summarize(parsed.issues).slice(0, 300)}`);
}

function pluginInput(call: ChainCall, plugin: PluginConfig, prevResult: CniResult | undefined): object {
  const { capabilities = {}, ...config } = plugin;
  const runtimeConfig = Object.fromEntries(
    Object.entries(call.capabilities).filter(([capability]) => capabilities[capability] === true),
  );
  return {
    ...config,
    name: call.conflist.name,
    cniVersion: call.conflist.cniVersion,
    ...(Object.keys(runtimeConfig).length > 0 ? { runtimeConfig } : {}),
    ...(prevResult ? { prevResult } : {}),
  };
}

function environment(call: ChainCall, command: Command): Record<string, string> {
  const common = { ...defaultEnv(), CNI_COMMAND: command, CNI_PATH: call.pluginDirs.join(':') };
  if (command === 'GC') return common; // concerns a network, not one attachment
  return {
    ...common,
    CNI_CONTAINERID: call.containerId,
    CNI_NETNS: call.netns,
    CNI_IFNAME: call.ifName,
    CNI_ARGS: Object.entries(call.args)
      .map(([key, value]) => `${key}=${value}`)
      .join(';'),
  };
}

export const typesOf = ({ plugins }: Conflist): readonly string[] => plugins.map(({ type }) => type);

/** Errors: `failedPrecondition` when a plugin is missing. */
export async function findPlugins(types: readonly string[], directories: readonly string[]): Promise<void> {
  for (const type of types) await find(type, directories);
}

async function find(type: string, directories: readonly string[]): Promise<string> {
  const path = await lookUp(type, directories);
  if (path !== undefined) return path;
  throw new PodvmError('failedPrecondition', `Cannot run CNI plugin ${type}: not found in ${directories.join(', ')}`, {
    fix: 'Install the Debian package containernetworking-plugins (`podvm setup` does), or the plugins your CNI configuration names.',
  });
}

async function lookUp(type: string, directories: readonly string[]): Promise<string | undefined> {
  for (const directory of directories) {
    const path = join(directory, type);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}

function json(what: string, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new PodvmError('corrupt', `Cannot use the answer of ${what}: not JSON, got "${printable(text, 100)}"`, {
      cause,
    });
  }
}

/** Spec, "Error": codes below 100 are the specification's own. */
const kindsByCode: Readonly<Record<number, ErrorKind>> = {
  1: 'failedPrecondition', // incompatible CNI version
  2: 'failedPrecondition', // unsupported field
  4: 'internal', // invalid environment variables, which PodVM sets
  7: 'failedPrecondition', // invalid network configuration
  11: 'unavailable', // try again later
};

function pluginError(command: Command, what: string, { code: exitCode, stdout, stderr }: RunResult): PodvmError {
  const tail = tailOf(stderr);
  let said: unknown;
  try {
    said = JSON.parse(stdout);
  } catch {
    said = undefined; // a plugin that crashes need not answer: report its exit code and last lines
  }
  const parsed = v.safeParse(errorSchema, said);
  if (!parsed.success) {
    const ending = signalOf(exitCode) ?? `it ended with ${exitCode}`;
    return new PodvmError(
      'internal',
      `Cannot run ${what}: ${[ending, ...tail.slice(-1).map((line) => printable(line))].join(': ')}`,
      { tail },
    );
  }
  const { code, msg, details } = parsed.output;
  const reason = printable(details ? `${msg}: ${details}` : msg);
  const verb = command === 'CHECK' ? 'pass' : 'run'; // a CHECK that fails did run
  return new PodvmError(kindsByCode[code] ?? 'internal', `Cannot ${verb} ${what}: error ${code}: ${reason}`, { tail });
}
