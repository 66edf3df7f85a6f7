/**
 * Table of the measurements of `npm run bench -- versus`, and of the promises about them. The command measures by this
 * table, and `docs/performance.md` is printed from it and from `docs/performance.json`.
 */

/** Runtimes that are measured side by side, by their names in the result. */
export const contestants = {
  podvm: 'PodVM',
  cold: 'PodVM, no machine waiting',
  containerd: 'containerd, runc',
  shim: 'containerd, PodVM',
  runsc: '`runsc run`',
  crun: '`crun run`',
  ctr: '`ctr run`, runc',
} as const;
export type Contestant = keyof typeof contestants;

/**
 * A promise: a figure of ours, or its ratio to a peer's or to another figure of ours in the same run, must be at most or at
 * least this.
 */
export interface Target {
  readonly of: 'podvm' | 'cold' | 'shim';
  readonly than?: Contestant;
  /** Name of the other figure, which is in the same row. */
  readonly thanFigure?: string;
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface Metric {
  readonly text: string;
  readonly unit: 'ms' | 'µs' | 'MB' | 'MB/s' | 'Mbit/s' | 'files/s' | 'lines' | 'processes';
  readonly targets?: readonly Target[];
}

export interface RowText {
  readonly title: string;
  readonly about: string;
  readonly peers: readonly Contestant[];
  readonly metrics: Readonly<Record<string, Metric>>;
  /** Maximum number of rounds; default: the requested number. */
  readonly maxRounds?: number;
  /** Whether the first round counts; by default it only warms up. */
  readonly isColdRound?: boolean;
}

const overCri = ['podvm', 'cold', 'containerd'] as const;
const steady = ['podvm', 'containerd'] as const;

const verb = (text: string): Metric => ({ text, unit: 'ms' });
const fromScratch = verb('from scratch to a running container');
/** Verbs of a pod's life, as a kubelet calls them. */
const verbs = {
  runPodSandboxMs: verb('RunPodSandbox'),
  createContainerMs: verb('CreateContainer'),
  startContainerMs: verb('StartContainer'),
  stopContainerMs: verb('StopContainer, killed at once'),
  removeContainerMs: verb('RemoveContainer'),
  stopPodSandboxMs: verb('StopPodSandbox'),
  removePodSandboxMs: verb('RemovePodSandbox'),
  stopAndRemoveMs: verb('all four of these'),
} as const;

export const table = {
  start: {
    title: 'One container from the shell',
    about:
      "Busybox that prints a line, image present, each by its own command. PodVM's is a client of a daemon and has a network; the others' containers have none. gVisor is in this row only: its shim for containerd needs CAP_SYS_RESOURCE, which not every machine gives root.",
    peers: ['podvm', 'cold', 'runsc', 'crun', 'ctr'],
    metrics: {
      firstOutputMs: {
        text: 'to the first output',
        unit: 'ms',
        targets: [{ of: 'podvm', than: 'runsc', atMost: 1.5 }],
      },
      commandMs: verb('to the end of the command, all removed'),
    },
  },
  pod: {
    title: 'A pod over CRI',
    about: 'The life of a pod with one container, image present, as a kubelet calls the verbs.',
    peers: overCri,
    metrics: {
      fromScratchMs: {
        ...fromScratch,
        targets: [
          { of: 'podvm', than: 'containerd', atMost: 1.25 },
          { of: 'cold', than: 'containerd', atMost: 3 },
        ],
      },
      ...verbs,
    },
  },
  exec: {
    title: 'Exec',
    about: 'ExecSync of `true` in a running container; the median of ten in each round.',
    peers: steady,
    metrics: {
      execSyncMs: {
        text: 'ExecSync',
        unit: 'ms',
        targets: [
          { of: 'podvm', than: 'containerd', atMost: 1.5 },
          { of: 'podvm', atMost: 25 },
        ],
      },
    },
  },
  containerd: {
    title: 'A pod under containerd',
    about:
      'The same life of a pod with both runtimes of one containerd, with the same images, and what the pod has on the host while its container sleeps. PodVM has a machine waiting. Memory is proportional (PSS).',
    peers: ['shim', 'containerd'],
    metrics: {
      fromScratchMs: fromScratch,
      ...verbs,
      memoryMB: { text: 'memory of all its processes', unit: 'MB' },
      processes: { text: 'on the host in all', unit: 'processes' },
      ofRuntime: {
        text: 'of these, neither VMM, jail, pause nor container',
        unit: 'processes',
        targets: [{ of: 'shim', atMost: 0 }],
      },
    },
  },
  memory: {
    title: 'Memory of a pod',
    about:
      "Proportional memory (PSS) of all processes that a pod has on the host, with shims, helpers and pause. Under load, one of the container's processes holds 64 MiB and 200 others have run.",
    peers: steady,
    maxRounds: 4,
    metrics: {
      idleMB: { text: 'idle', unit: 'MB', targets: [{ of: 'podvm', atMost: 75 }] },
      restedMB: { text: 'idle for 80 s', unit: 'MB' },
      wokenMs: { text: 'the first ExecSync then', unit: 'ms' },
      wokenMB: { text: 'after that', unit: 'MB' },
      loadedMB: { text: 'under load', unit: 'MB' },
    },
  },
  cpu: {
    title: 'Processor time on the host',
    about:
      'Of everything on the host per operation, kernel and daemons included, until the node rests (a pool is full again), less what it uses at rest.',
    peers: overCri,
    maxRounds: 6,
    metrics: {
      podMs: { text: 'a pod from scratch to its removal', unit: 'ms' },
      execMs: { text: 'ExecSync of `true`', unit: 'ms' },
    },
  },
  burst: {
    title: 'Twenty pods at once',
    about: 'Twenty pods with one container each, asked for at the same time.',
    peers: overCri,
    maxRounds: 4,
    metrics: {
      firstMs: verb('until one runs'),
      allMs: verb('until all run'),
      removedMs: verb('until all are removed'),
    },
  },
  density: {
    title: 'Many idle pods',
    about:
      "So many idle pods at a time (20, or as `--density` says). The target of the daemon's memory is that of 100 pods.",
    peers: steady,
    maxRounds: 2,
    isColdRound: true,
    metrics: {
      podMB: { text: 'PSS of one of them', unit: 'MB' },
      hostMB: { text: 'available memory that the host lost, for each', unit: 'MB' },
      daemonMB: { text: "the daemon's own resident memory", unit: 'MB', targets: [{ of: 'podvm', atMost: 120 }] },
      execSyncMs: verb('ExecSync in each of them, the slowest'),
    },
  },
  daemon: {
    title: 'The daemon',
    about:
      'A daemon that has just started runs ten pods and is then asked for 1,000 lists and statuses a second, of pods and of containers in turn, for 15 s. containerd is that of the other rows; what it keeps for each pod is in processes of their own.',
    peers: steady,
    maxRounds: 3,
    metrics: {
      tenPodsMB: { text: 'its resident memory with ten pods', unit: 'MB', targets: [{ of: 'podvm', atMost: 90 }] },
      anonymousMB: { text: 'of which no file has', unit: 'MB' },
      askedMB: { text: 'its resident memory after the lists and statuses', unit: 'MB' },
      servesMs: { text: 'from its start until it serves', unit: 'ms', targets: [{ of: 'podvm', atMost: 300 }] },
      callMs: verb('a list or a status, median'),
      slowCallMs: { text: 'a list or a status, p99', unit: 'ms', targets: [{ of: 'podvm', atMost: 10 }] },
    },
  },
  files: {
    title: 'Files',
    about:
      'By a shell and dd in the container: 64 MiB written and synced, read past the caches of container and host, and 300 small files made.',
    peers: steady,
    metrics: {
      rootWrite: { text: 'root file system, written', unit: 'MB/s' },
      rootRead: { text: 'root file system, read', unit: 'MB/s' },
      rootCreate: { text: 'root file system, files made', unit: 'files/s' },
      volumeWrite: { text: 'volume of the host, written', unit: 'MB/s' },
      volumeRead: { text: 'volume of the host, read', unit: 'MB/s' },
      volumeCreate: {
        text: 'volume of the host, files made',
        unit: 'files/s',
        targets: [{ of: 'podvm', atLeast: 600 }],
      },
    },
  },
  net: {
    title: 'Network',
    about:
      'One stream of iperf3, and round trips of ping, on one bridge for all. Of two pods, the processors of both are emulated, on the cores that their devices use, too. Within a pod no device is involved: a veth joins two network namespaces of one pod, with the processors that a pod has. Between pods, half of that is the target.',
    peers: steady,
    metrics: {
      hostToPod: { text: 'TCP, host to pod', unit: 'Mbit/s' },
      podToHost: { text: 'TCP, pod to host', unit: 'Mbit/s' },
      podToPod: {
        text: 'TCP, pod to pod',
        unit: 'Mbit/s',
        targets: [{ of: 'podvm', thanFigure: 'overVeth', atLeast: 0.5 }],
      },
      overVeth: { text: 'TCP, over a veth within a pod', unit: 'Mbit/s' },
      withinPod: { text: 'TCP, over loopback within a pod', unit: 'Mbit/s' },
      hostToPodUs: { text: 'round trip, host to pod', unit: 'µs' },
      podToPodUs: { text: 'round trip, pod to pod', unit: 'µs' },
    },
  },
  pull: {
    title: 'A large image',
    about:
      'An image of 20 layers, 300 MB unpacked, from a registry on loopback, and then its next version, of which one layer is another; that is pulled again, as a kubelet does whose policy is Always; both are removed between rounds.',
    peers: ['podvm', 'containerd'],
    metrics: {
      pullMs: verb('PullImage'),
      toRunningMs: {
        text: 'PullImage to a running container',
        unit: 'ms',
        targets: [{ of: 'podvm', than: 'containerd', atMost: 1.2 }],
      },
      diskMB: {
        text: 'disk space used then',
        unit: 'MB',
        targets: [{ of: 'podvm', than: 'containerd', atMost: 1.1 }],
      },
      nextPullMs: {
        text: 'PullImage of the next version',
        unit: 'ms',
        targets: [{ of: 'podvm', than: 'containerd', atMost: 1.2 }],
      },
      nextDiskMB: { text: 'more disk space for it', unit: 'MB' },
      againPullMs: { text: 'PullImage when it is there', unit: 'ms' },
    },
  },
  logs: {
    title: 'Logs',
    about:
      "A container that prints 32 MiB of lines of 128 bytes, until the last one is in the log's file. Thrown away, the same lines go to /dev/null: no log of them can be faster.",
    peers: steady,
    metrics: {
      logMBps: { text: 'throughput', unit: 'MB/s', targets: [{ of: 'podvm', atLeast: 80 }] },
      thrownMBps: { text: 'thrown away', unit: 'MB/s' },
    },
  },
} as const satisfies Record<string, RowText>;

export type RowName = keyof typeof table;
export const rowNames = Object.keys(table) as readonly RowName[]; // SAFE: an object of that type has these keys
