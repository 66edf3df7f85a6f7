import { Option } from 'commander';
import { PodvmError } from '#base/errors.ts';
import type { FlagValues } from './pod-of-image.ts';

interface RefusedFlag {
  readonly flags: string;
  /** Reason, as the end of a sentence. */
  readonly why: string;
  /** Advice, as one sentence. */
  readonly fix: string;
}

const inFile = (field: string) => `Print the Pod with --dry-run -o yaml, add ${field}, and run that file.`;
const noHost = 'a pod in a machine of its own shares nothing of that kind with the host';
const probe = { why: 'a health check of an image is not a probe of a Pod', fix: inFile('a readinessProbe') };
const oneNetwork = { why: 'a pod has one network, that of the node', fix: 'Use --network cni (the default) or none.' };

/** Flags of Docker and Podman that a Pod of one command line cannot express. */
export const refusedFlags: readonly RefusedFlag[] = [
  { flags: '--health-cmd [value]', ...probe },
  { flags: '--health-interval [value]', ...probe },
  { flags: '--health-retries [value]', ...probe },
  { flags: '--health-start-interval [value]', ...probe },
  { flags: '--health-start-period [value]', ...probe },
  { flags: '--health-timeout [value]', ...probe },
  { flags: '--no-healthcheck', why: 'a health check of an image is never run', fix: 'Leave it out.' },
  {
    flags: '--init',
    why: 'a Pod has no init process of its own beside the command',
    fix: 'Begin the command with one that the image has, such as tini.',
  },
  {
    flags: '--platform [value]',
    why: 'a machine has the processor of its host, and images are chosen for it',
    fix: 'Leave it out.',
  },
  {
    flags: '-P, --publish-all',
    why: 'a Pod names its ports of the host; podvm chooses none',
    fix: 'Use -p HOST-PORT:CONTAINER-PORT for each port.',
  },
  { flags: '--tmpfs [value]', why: 'there is one way to write it', fix: 'Use --mount type=tmpfs,target=PATH.' },
  { flags: '--volumes-from [value]', why: 'a pod shares no volumes', fix: 'Use -v with a path of the host for both.' },
  { flags: '--link [value]', ...oneNetwork },
  { flags: '--network-alias [value]', ...oneNetwork },
  { flags: '--ip [value]', ...oneNetwork },
  { flags: '--mac-address [value]', ...oneNetwork },
  { flags: '--pid [value]', why: noHost, fix: 'Leave it out.' },
  { flags: '--ipc [value]', why: noHost, fix: 'Leave it out.' },
  { flags: '--uts [value]', why: noHost, fix: 'Leave it out.' },
  { flags: '--userns [value]', why: 'a Pod expresses it differently', fix: inFile('spec.hostUsers: false') },
  { flags: '--device [value]', why: noHost, fix: inFile('volumeDevices for a block device') },
  { flags: '--gpus [value]', why: noHost, fix: 'Run the program without a GPU.' },
  { flags: '--sysctl [value]', why: 'a Pod expresses it differently', fix: inFile('spec.securityContext.sysctls') },
  { flags: '--security-opt [value]', why: 'a Pod expresses it differently', fix: inFile('a securityContext') },
  { flags: '--group-add [value]', why: 'a Pod expresses it differently', fix: inFile('supplementalGroups') },
  { flags: '--ulimit [value]', why: 'a Pod has no limits of that kind', fix: 'Call `ulimit` in the command.' },
  {
    flags: '--shm-size [value]',
    why: '/dev/shm is a part of the memory of the pod',
    fix: 'Use --mount type=tmpfs,target=/dev/shm,tmpfs-size=SIZE.',
  },
  {
    flags: '--stop-timeout [value]',
    why: 'a Pod expresses it differently',
    fix: inFile('spec.terminationGracePeriodSeconds'),
  },
  { flags: '--stop-signal [value]', why: "the image's own signal is used", fix: 'Trap SIGTERM in the command.' },
  { flags: '--pod [value]', why: 'a command line makes a pod of one container', fix: inFile('the other containers') },
  {
    flags: '--log-driver [value]',
    why: 'logs of a pod are files of its node',
    fix: 'Leave it out; `podvm logs` prints them.',
  },
];

/** Hidden from help: these options exist only to be refused. */
export const refusedOptions: readonly Option[] = refusedFlags.map(({ flags }) => new Option(flags).hideHelp());

/** Errors: `unsupported` for the first flag that a Pod cannot express. */
export function refuseFlags(values: FlagValues): void {
  for (const [at, { why, fix }] of refusedFlags.entries()) {
    const option = refusedOptions[at];
    const value = option === undefined ? undefined : values[option.attributeName()];
    // A flag that begins with `no-` stands at true until it is given.
    if (option === undefined || value === undefined || (option.negate && value !== false)) continue;
    throw new PodvmError('unsupported', `Cannot use ${option.long ?? option.flags}: ${why}`, { fix });
  }
}
