import { readFile } from 'node:fs/promises';
import type { HostCgroup } from './host-cgroup.ts';

/**
 * Who goes first when machines want more processor than the host has: those that have used little of it lately, beside the
 * one that has used most, each by its shares. So a pod that works now and then is answered soon beside pods that never
 * rest, and one that works on loses its place after some seconds.
 */
const memorySeconds = 60;
/** Of what the one that used most has used. */
const little = 2 / 3;

/** What one machine has used lately, in cores: a mean that forgets, over no more than its life; pure. */
export class LatelyUsed {
  #cores = 0;
  #seconds = 0;

  get cores(): number {
    return this.#cores;
  }

  count(usedSeconds: number, spanSeconds: number): void {
    if (spanSeconds <= 0) return;
    this.#seconds = Math.min(memorySeconds, this.#seconds + spanSeconds);
    const weight = Math.min(1, spanSeconds / this.#seconds);
    this.#cores += weight * (usedSeconds / spanSeconds - this.#cores);
  }
}

/** Of each of them, in order, whether it goes first. */
export function whoGoesFirst(machines: readonly { readonly cores: number; readonly shares: number }[]): boolean[] {
  const used = machines.map(({ cores, shares }) => cores / Math.max(1, shares));
  const most = Math.max(0, ...used);
  return used.map((each) => each < little * most);
}

interface Member {
  readonly pid: number;
  readonly cgroup: HostCgroup;
  readonly lately: LatelyUsed;
  usedSeconds: number | undefined;
}

const intervalMs = 500;
/** proc_pid_stat(5): USER_HZ, which is 100 wherever Linux runs PodVM. */
const ticksPerSecond = 100;

/** Looks at machines twice a second while there are some. */
export class ProcessorTurns {
  readonly #members = new Set<Member>();
  #timer: NodeJS.Timeout | undefined;
  #lastMs = 0;

  /** Counts the machine of that VMM from now on, while it runs. */
  add(pid: number, cgroup: HostCgroup): void {
    this.#members.add({ pid, cgroup, lately: new LatelyUsed(), usedSeconds: undefined });
    if (this.#timer !== undefined) return;
    this.#lastMs = performance.now();
    this.#timer = setInterval(() => void this.#look(), intervalMs).unref();
  }

  async #look(): Promise<void> {
    const nowMs = performance.now();
    const spanSeconds = (nowMs - this.#lastMs) / 1000;
    this.#lastMs = nowMs;
    await Promise.all([...this.#members].map((member) => this.#count(member, spanSeconds)));
    const members = [...this.#members];
    const first = whoGoesFirst(
      members.map(({ lately, cgroup }) => ({ cores: lately.cores, shares: cgroup.cpuShares })),
    );
    await Promise.all(members.map((member, at) => this.#prefer(member, first[at] === true)));
    if (this.#members.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #count(member: Member, spanSeconds: number): Promise<void> {
    const used = await processorSeconds(member.pid);
    if (used === undefined) this.#members.delete(member);
    else if (member.usedSeconds !== undefined) member.lately.count(used - member.usedSeconds, spanSeconds);
    member.usedSeconds = used;
  }

  async #prefer(member: Member, isPreferred: boolean): Promise<void> {
    try {
      await member.cgroup.prefer(isPreferred);
    } catch {
      this.#members.delete(member); // its cgroup has gone with it
    }
  }
}

/** What all threads of the process have used; undefined: it has ended. */
async function processorSeconds(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
