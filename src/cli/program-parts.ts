import type { DiskUsage } from '#api/disk-usage.ts';
import type { RunRequestInput } from '#api/run.ts';
import type { EndSignals } from './end-signals.ts';
import type { Orphan } from './orphans.ts';
import type { Terminal } from './terminal.ts';
import type { Versions } from './version-command.ts';

/** What the commands need beside a terminal; `main.ts` gives it, so that this layer stays a client. */
export interface ProgramParts {
  readonly terminal: Terminal;
  /** Socket of the podvm process of this state directory, whether one is there or not. */
  readonly socketPath: (options: GlobalOptions) => string;
  /** Variables of this process. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Checks manifests as a run does, without a node; returns warnings. */
  readonly checkManifests: (files: RunRequestInput['files']) => Promise<readonly string[]>;
  /** Where signals of this process arrive. */
  readonly signals: NodeJS.EventEmitter;
  /** SIGHUP was ignored when it began (nohup), and stays so. */
  readonly keepsHangUp: boolean;
  /** Ends this process at once. */
  readonly leave: (code: number) => void;
  /** Makes sure that a process serves a socket: a running one, a new one in the background, or this one until it is disposed. */
  readonly ensureServed: (options: GlobalOptions, purpose: Purpose, ends: EndSignals) => Promise<Served>;
  /** Makes sure that pods which outlived their node are served again. An abort of `signal` ends the wait. */
  readonly serveLeftPods: (options: GlobalOptions, signal: AbortSignal) => Promise<void>;
  /** The process that serves; if there is none, this one with the pods that have ended, until it is disposed. */
  readonly knownPods: (options: GlobalOptions) => Promise<Served>;
  /** Machines that run, and whose podvm does not. */
  readonly orphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  /** Ends them and takes away what they left. */
  readonly endOrphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  readonly setup: (options: GlobalOptions & SetupWishes, ends: EndSignals) => Promise<string>;
  /** Makes podvm a runtime of another program on this host. */
  readonly install: (
    options: GlobalOptions & { readonly dryRun: boolean; readonly restart: boolean },
    ends: EndSignals,
  ) => Promise<string>;
  readonly uninstall: (options: GlobalOptions & { readonly state: boolean }, ends: EndSignals) => Promise<string>;
  /** Serves until it is asked to end. */
  readonly daemon: (
    options: GlobalOptions & { readonly config?: string; readonly background: boolean },
  ) => Promise<void>;
  readonly doctor: (
    options: GlobalOptions & { readonly json: boolean; readonly accelerator?: 'kvm'; readonly config?: string },
    ends: EndSignals,
  ) => Promise<{ text: string; isHealthy: boolean }>;
  readonly diskUsage: (options: GlobalOptions, ends: EndSignals) => Promise<DiskUsage>;
  readonly version: string;
  readonly versions: (options: GlobalOptions) => Promise<Versions>;
}

export interface SetupWishes {
  readonly upgrade: boolean;
  readonly sbom: boolean;
  /** File to write the bundle to. */
  readonly bundle?: string;
  /** Bundle to install from. */
  readonly from?: string;
}

/**
 * What a command needs to be served. `podsHere`: pods, without a node in the background. `storedImages`: what is there
 * without a node.
 */
export type Purpose = 'pods' | 'podsHere' | 'images' | 'storedImages';

export interface Served extends AsyncDisposable {
  /** Where the admin API is. */
  readonly socketPath: string;
}

export interface GlobalOptions {
  readonly root?: string;
  readonly logLevel?: string;
}
