import { readFile } from 'node:fs/promises';
import type { SupportFile } from '#api/support-file.ts';
import { messageOf } from '#base/errors.ts';
import { backgroundLogPath } from '../background/background-node.ts';
import type { FileSettings } from '../configuration/config-file.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { readDiskUsage } from '../node/disk-usage.ts';
import { doctorCommand } from '../doctor/doctor.ts';
import { requireRoot } from '../background/serve-here.ts';
import { settings } from '../configuration/settings.ts';
import { readVersions } from '../node/versions.ts';
import { hostFacts } from './host-facts.ts';
import { writeBundle } from './write-bundle.ts';

export interface SupportRequest {
  readonly config: Configuration;
  /** Settings of the daemon's file, if one is named. */
  readonly file: FileSettings;
  readonly env: NodeJS.ProcessEnv;
  readonly version: string;
  readonly write: (line: string) => void;
  /** Absolute path. */
  readonly output: string;
  /** What the node said of itself and its pods. */
  readonly ofNode: readonly SupportFile[];
  readonly logs: boolean;
}

/** Writes a file for a bug report, and returns what is in it. Errors: `denied` without root, those of `writeBundle`. */
export async function supportBundle(request: SupportRequest, signal: AbortSignal): Promise<string> {
  const { config, version, write, output, ofNode, logs } = request;
  requireRoot('look at the node');
  const read = async (name: string, text: () => Promise<string>): Promise<SupportFile> => ({
    name,
    text: await text().catch((error: unknown) => {
      signal.throwIfAborted();
      return `not there: ${messageOf(error)}\n`;
    }),
  });
  const ofHost = await Promise.all([
    read('versions.json', async () => json(await readVersions(config, version))),
    read('settings.json', () => Promise.resolve(json(settingsOf(request)))),
    read('doctor.json', async () => (await doctorCommand({ config, version, write }, doctorWishes, signal)).text),
    read('disk.json', async () => json(await readDiskUsage(config.root, signal))),
    read('host.txt', hostFacts),
    read('background-node.log', () => readFile(backgroundLogPath(config), 'utf8')),
  ]);
  const notes = [
    'What is in this file for a bug report. Read it before you publish it: it names pods, images and addresses.',
    'Left out: variables, arguments, labels and annotations of pods, ConfigMaps and Secrets, logins, and messages of events.',
    logs
      ? 'Logs of containers are in it, as asked by --logs: they have whatever the containers wrote.'
      : 'Logs of containers are not in it; --logs adds the last lines of each.',
    ...(ofNode.length === 0 ? ['No podvm serves this state directory: nothing is known of its pods.'] : []),
  ];
  const contents = await writeBundle(output, [...ofHost, ...ofNode], notes, signal);
  return `${contents}\nwritten: ${output}\n`;
}

/** A bug report asks nothing of the network. */
const doctorWishes = { json: true, asksArchives: false };

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** Settings as the file and this command's environment have them. */
function settingsOf({ file, env }: SupportRequest): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(settings).flatMap(([key, setting]) => {
      const value = env[setting.env] ?? file[key as keyof FileSettings]; // SAFE: a key of the settings
      return value === undefined ? [] : [[key, value]];
    }),
  );
}
