import { type Diagnosis, diagnosisOf, type Finding } from '#api/finding.ts';
import { printable } from '#base/guest-text.ts';
import type { ImageCounts } from '#image/image-counts.ts';
import type { PodEvent } from '#pod/pods.ts';
import type { Examination, GuestView } from '#sandbox/figures/examination.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import {
  answerFinding,
  clockFinding,
  diskFinding,
  memoryFinding,
  oomFinding,
  processorFinding,
} from './guest-findings.ts';
import { layerFinding, mountFindings, volumeFinding } from './mount-findings.ts';
import { guestNetworkFindings, hostNetworkFindings } from './network-findings.ts';
import { pullFindings, type WaitingContainer } from './pull-findings.ts';

export interface DiagnosedPod {
  readonly name: string;
  readonly sandbox: Pick<Sandbox, 'status' | 'spec' | 'containers' | 'examine' | 'consoleTail'>;
  /** Events of a pod that podvm made, and its containers that wait to be made. */
  readonly events: readonly PodEvent[];
  readonly waiting: readonly WaitingContainer[];
  /** Pulls of the node in progress. */
  readonly pulling: ImageCounts['pulling'];
  /** The node's own versions by name. */
  readonly versions: Readonly<Record<string, string | number | undefined>>;
}

const maxDetailChars = 300;
const maxFixChars = 600;
const consoleLines = 40;

/** Looks at a pod of any owner from outside and inside. Text of the guest comes out escaped. */
export async function diagnose(pod: DiagnosedPod, signal: AbortSignal): Promise<Diagnosis> {
  const { status } = pod.sandbox;
  const isAwake = status.state === 'ready' && status.isPaused !== true;
  const examined = isAwake ? examinedFindings(await pod.sandbox.examine(signal), pod) : [];
  const tail = await pod.sandbox.consoleTail(consoleLines).catch(() => []);
  const findings = [
    machineFinding(pod),
    ...pullFindings(pod.waiting, pod.pulling, Date.now()),
    ...examined,
    versionFinding(status.parts, pod.versions),
    consoleFinding(tail.map((line) => printable(line))),
    ...lastEnds(pod),
    ...lastWarnings(pod.events),
  ];
  return diagnosisOf(
    findings.map(({ name, detail, fix, ...finding }) => ({
      name: printable(name, 100),
      detail: printable(detail, maxDetailChars),
      ...finding,
      ...(fix === undefined ? {} : { fix: printable(fix, maxFixChars) }),
    })),
  );
}

function examinedFindings(
  { answer, guest, figures, containers, ...outside }: Examination,
  { name, sandbox: { status, spec } }: DiagnosedPod,
): readonly Finding[] {
  const view = 'value' in guest ? guest.value : undefined;
  const measured = 'value' in figures ? figures.value : undefined;
  const inside = (look: (seen: GuestView) => readonly Finding[]) => (view === undefined ? [] : look(view));
  return [
    answerFinding(answer, name),
    ...('value' in answer && 'why' in guest ? [unseen(guest.why)] : []),
    ...inside((seen) => [clockFinding(seen), ...guestNetworkFindings(seen, status.addresses)]),
    ...hostNetworkFindings({ ...outside, figures }, spec.hostPorts.length),
    ...containers.flatMap(mountFindings),
    ...containers.flatMap(layerFinding),
    ...inside(({ volumes }) => volumes.map(({ name: volume, space }) => volumeFinding(volume, space))),
    ...inside((seen) =>
      measured === undefined
        ? []
        : [memoryFinding(measured, seen), processorFinding(measured, seen), diskFinding(seen)],
    ),
    oomFinding(containers, figures),
  ];
}

function machineFinding({ name, sandbox: { status } }: DiagnosedPod): Finding {
  const detail = `${status.state}${status.accelerator === undefined ? '' : `, by ${status.accelerator}`}`;
  if (status.isPaused === true) {
    const fix = `Let it continue with \`podvm unpause ${name}\`.`;
    return { name: 'machine', status: 'warn', detail: 'paused: it was not looked into', fix };
  }
  if (status.state === 'ready') return { name: 'machine', status: 'ok', detail };
  return {
    name: 'machine',
    status: 'fail',
    detail: status.failure === undefined ? detail : `${detail}: ${status.failure}`,
    fix: `See what happened with \`podvm describe ${name}\`.`,
  };
}

/** An agent of an older podvm, which outlived it, cannot be examined. */
const unseen = (why: string): Finding => ({
  name: 'guest',
  status: 'skip',
  detail: /no such method/.test(why) ? 'its agent is older than this podvm and cannot be asked' : why,
});

function versionFinding(parts: Sandbox['status']['parts'], node: DiagnosedPod['versions']): Finding {
  const name = 'versions';
  const older = (['qemu', 'kernel', 'crun', 'agent'] as const).filter(
    (part) => parts[part] !== '' && node[part] !== undefined && node[part] !== parts[part],
  );
  if (older.length === 0) return { name, status: 'ok', detail: 'those of the node' };
  const detail = older.map((part) => `${part} ${parts[part]} instead of ${node[part]}`).join(', ');
  return {
    name,
    status: 'warn',
    detail,
    fix: 'The pod was started with earlier parts. Restart it to get the new ones.',
  };
}

function consoleFinding(lines: readonly string[]): Finding {
  const name = 'kernel';
  const bad = lines.findLast((line) => /Kernel panic|BUG:|Oops:|I\/O error|EXT4-fs error|soft lockup/.test(line));
  if (bad === undefined) return { name, status: 'ok', detail: 'no complaint in the last lines of its console' };
  return { name, status: 'warn', detail: bad, fix: 'See all with `podvm console`, and restart the pod.' };
}

/** How containers have ended that did not end well, the last of each name. */
function lastEnds({ name: pod, sandbox: { containers } }: DiagnosedPod): readonly Finding[] {
  const last = new Map(containers.map(({ status }) => [status.name, status]));
  return [...last.values()].flatMap(({ name, exit, state }): readonly Finding[] => {
    if (state !== 'exited' || exit === undefined || exit.exitCode === 0) return [];
    const why = exit.why === undefined ? '' : `: ${exit.why}`;
    const detail = `${exit.reason}, exit code ${exit.exitCode}${why}`;
    const fix = `Read what it wrote with \`podvm logs ${printable(pod)} -c ${printable(name)}\`.`;
    return [{ name: `end of ${name}`, status: 'warn', detail, fix }];
  });
}

const maxWarnings = 3;

const lastWarnings = (events: readonly PodEvent[]): readonly Finding[] =>
  events
    .filter(({ type }) => type === 'Warning')
    .slice(-maxWarnings)
    .map(({ reason, message, fix }) => ({
      name: 'event',
      status: 'warn',
      detail: `${reason}: ${message}`,
      ...(fix === undefined ? {} : { fix }),
    }));
