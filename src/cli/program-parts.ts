import type { DiskUsage } from '#api/disk-usage.ts';
import type { FoundLogins, LoginWish, LogoutWish } from '#api/registry-logins.ts';
import type { RunRequestInput } from '#api/run.ts';
import type { SupportFile } from '#api/support-file.ts';
import type { EndSignals } from './terminal/end-signals.ts';
import type { Orphan } from './pods/orphans.ts';
import type { Terminal } from './terminal/terminal.ts';
import type { Versions } from './version-command.ts';

/** Parts that the commands need besides a terminal. `main.ts` provides them, so that this layer stays a client. */
export interface ProgramParts {
  readonly terminal: Terminal;
  /** Socket of the podvm process of this state directory, whether or not one runs. */
  readonly socketPath: (options: GlobalOptions) => string;
  /** Variables of the command. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Set where the command runs in another process than its caller's. */
  readonly elsewhere?: Elsewhere;
  /** Checks manifests as a run does, without a node; returns warnings. */
  readonly checkManifests: (files: RunRequestInput['files']) => Promise<readonly string[]>;
  /** Lists the images that the Pods of files name. Errors: those of a run that refuses the files. */
  readonly namedImages: (files: RunRequestInput['files'], signal: AbortSignal) => Promise<readonly string[]>;
  /**
   * The user's logins for the registries of images, which are only asked for if there are any logins. `authfile` replaces
   * the user's own files.
   */
  readonly userLogins: (
    images: () => Promise<readonly string[]>,
    authfile: string | undefined,
    signal: AbortSignal,
  ) => Promise<FoundLogins>;
  /** Asks the terminal for what is missing, and writes a login that the registry accepts. */
  readonly login: (wish: LoginWish, signal: AbortSignal) => Promise<void>;
  readonly logout: (wish: LogoutWish, signal: AbortSignal) => Promise<void>;
  /** Emitter of the signals of this process. */
  readonly signals: NodeJS.EventEmitter;
  /** SIGHUP was ignored when this process started (nohup), and stays ignored. */
  readonly keepsHangUp: boolean;
  /** Ends this process immediately. */
  readonly leave: (code: number) => void;
  /** Makes sure that a process serves a socket: a running one, a new one in the background, or this one until it is disposed. */
  readonly ensureServed: (options: GlobalOptions, purpose: Purpose, ends: EndSignals) => Promise<Served>;
  /** Makes sure that pods which outlived their node are served again. An abort of `signal` ends the wait. */
  readonly serveLeftPods: (options: GlobalOptions, signal: AbortSignal) => Promise<void>;
  /** Returns the process that serves; if there is none, this process serves the ended pods until it is disposed. */
  readonly knownPods: (options: GlobalOptions) => Promise<Served>;
  /** Machines that still run after their podvm has ended. */
  readonly orphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  /** Ends these machines and removes their remains. */
  readonly endOrphans: (options: GlobalOptions) => Promise<readonly Orphan[]>;
  readonly setup: (options: GlobalOptions & SetupWishes, ends: EndSignals) => Promise<string>;
  /** Makes podvm a runtime of another program on this host. */
  readonly install: (
    program: 'containerd' | 'k3s',
    options: GlobalOptions & { readonly dryRun: boolean; readonly restart: boolean },
    ends: EndSignals,
  ) => Promise<string>;
  readonly uninstall: (options: GlobalOptions & { readonly state: boolean }, ends: EndSignals) => Promise<string>;
  /** Serves until a signal ends it. */
  readonly daemon: (
    options: GlobalOptions & { readonly config?: string; readonly background: boolean },
  ) => Promise<void>;
  readonly doctor: (
    options: GlobalOptions & { readonly json: boolean; readonly accelerator?: 'kvm'; readonly config?: string },
    ends: EndSignals,
  ) => Promise<{ text: string; isHealthy: boolean }>;
  /** Writes a file for a bug report, with what the node has said, and returns what is in it. */
  readonly supportBundle: (options: GlobalOptions & SupportWishes, ends: EndSignals) => Promise<string>;
  readonly diskUsage: (options: GlobalOptions, ends: EndSignals) => Promise<DiskUsage>;
  /** Serves the dashboard on a port of loopback (0: any free one), as a client of a node's socket, until it is disposed. */
  readonly serveDashboard: (socketPath: string, port: number) => Promise<AsyncDisposable & { readonly url: string }>;
  readonly version: string;
  readonly versions: (options: GlobalOptions) => Promise<Versions>;
}

/** The caller of a command that runs in another process. */
export interface Elsewhere {
  /** Whether a word of its command line names something that can be read as a file. */
  readonly isFile: (word: string) => boolean;
  /** Leaves a command that needs more of the caller, such as its files, to the caller's own process. */
  readonly refuse: () => never;
}

export interface SupportWishes {
  /** File to write. */
  readonly output: string;
  /** Settings file of the daemon. */
  readonly config?: string;
  /** Logs of containers are included. */
  readonly logs: boolean;
  readonly ofNode: readonly SupportFile[];
}

export interface SetupWishes {
  readonly upgrade: boolean;
  /** Kernel of new machines. */
  readonly kernel?: 'debian' | 'small';
  readonly sbom: boolean;
  /** File to write the bundle to. */
  readonly bundle?: string;
  /** Bundle to install from. */
  readonly from?: string;
  /** Settings file of the daemon. */
  readonly config?: string;
}

/**
 * Service that a command needs. `podsHere`: pods, without a node in the background. `storedImages`: the existing
 * images, without a node.
 */
export type Purpose = 'pods' | 'podsHere' | 'images' | 'storedImages';

export interface Served extends AsyncDisposable {
  /** Socket of the admin API. */
  readonly socketPath: string;
}

export interface GlobalOptions {
  readonly root?: string;
  readonly logLevel?: string;
}

/** Parts that the commands of one program share. */
export interface Setting {
  readonly parts: ProgramParts;
  readonly global: () => GlobalOptions;
  /** Called with a command's exit code if it is not 0. */
  readonly exit: (code: number) => void;
  /** Runs `use`. If a signal cancels it, exits with that signal's exit code. */
  readonly untilEnded: (use: (ends: EndSignals) => Promise<void>) => Promise<void>;
}

/** Parts that do something for a command, each of which refuses instead: for a program that runs none, or few. */
export function refusingParts(refuse: () => never) {
  return {
    ...{
      checkManifests: refuse,
      namedImages: refuse,
      userLogins: refuse,
      login: refuse,
      logout: refuse,
      leave: refuse,
    },
    ...{ socketPath: refuse, ensureServed: refuse, serveLeftPods: refuse, knownPods: refuse },
    ...{ orphans: refuse, endOrphans: refuse, setup: refuse, install: refuse, uninstall: refuse, daemon: refuse },
    ...{ doctor: refuse, supportBundle: refuse, diskUsage: refuse, serveDashboard: refuse, versions: refuse },
  } satisfies Partial<ProgramParts>;
}
