import { type RefusedFlag, refusalsOf } from '../refusals.ts';

const inFile = (field: string) => `Print the Pod with --dry-run -o yaml, add ${field}, and run that file.`;
const noHost = 'a pod in a machine of its own shares nothing of that kind with the host';
const probe = { why: 'a health check of an image is not a probe of a Pod', fix: inFile('a readinessProbe') };
const oneNetwork = { why: 'a pod has one network, that of the node', fix: 'Use --network cni (the default) or none.' };

/** Flags of Docker and Podman that a Pod of one command line cannot express. */
const refusedFlags: readonly RefusedFlag[] = [
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
  { flags: '--log-opt [value]', why: 'logs of a pod are files of its node', fix: 'Leave it out.' },
  {
    flags: '-a, --attach [value]',
    why: 'output is always shown, unless -d is given',
    fix: 'Use -i for standard input, or `podvm attach` later.',
  },
  { flags: '--detach-keys [value]', why: 'the keys are Ctrl-P Ctrl-Q', fix: 'Leave it out.' },
  { flags: '--sig-proxy [value]', why: 'Ctrl-C asks the pod to stop', fix: 'Send signals with `podvm kill -s`.' },
  { flags: '--cidfile [value]', why: 'a pod has a name instead', fix: 'Use --name, or read the name that -d prints.' },
  { flags: '--net [value]', ...oneNetwork },
  { flags: '--ip6 [value]', ...oneNetwork },
  { flags: '--expose [value]', why: 'every port of a pod can be reached', fix: 'Use -p to publish one on the host.' },
  { flags: '--dns-search [value]', why: 'a Pod expresses it differently', fix: inFile('spec.dnsConfig.searches') },
  { flags: '--dns-option [value]', why: 'a Pod expresses it differently', fix: inFile('spec.dnsConfig.options') },
  { flags: '--domainname [value]', why: 'a Pod expresses it differently', fix: inFile('spec.subdomain') },
  { flags: '-c, --cpu-shares [value]', why: 'a Pod expresses it differently', fix: inFile('resources.requests.cpu') },
  { flags: '--cpu-period [value]', why: 'there is one way to write it', fix: 'Use --cpus.' },
  { flags: '--cpu-quota [value]', why: 'there is one way to write it', fix: 'Use --cpus.' },
  { flags: '--cpuset-cpus [value]', why: 'a machine has processors of its own', fix: 'Use --cpus.' },
  { flags: '--cpuset-mems [value]', why: 'a machine has memory of its own', fix: 'Leave it out.' },
  {
    flags: '--memory-reservation [value]',
    why: 'a Pod expresses it differently',
    fix: inFile('resources.requests.memory'),
  },
  { flags: '--memory-swap [value]', why: 'a machine has no swap', fix: 'Leave it out.' },
  { flags: '--memory-swappiness [value]', why: 'a machine has no swap', fix: 'Leave it out.' },
  { flags: '--oom-kill-disable', why: 'the kernel must be able to end it', fix: 'Give it more memory with -m.' },
  { flags: '--oom-score-adj [value]', why: 'requests and limits decide it', fix: 'Use -m and --cpus.' },
  { flags: '--pids-limit [value]', why: 'a Pod has no limits of that kind', fix: 'Leave it out.' },
  {
    flags: '--storage-opt [value]',
    why: 'a Pod expresses it differently',
    fix: inFile('resources.limits.ephemeral-storage'),
  },
  { flags: '--cgroup-parent [value]', why: 'the machine of a pod has a cgroup of podvm', fix: 'Leave it out.' },
  { flags: '--cgroupns [value]', why: 'a container has a cgroup namespace of its own', fix: 'Leave it out.' },
  { flags: '--runtime [value]', why: 'every pod runs in a microVM', fix: 'Leave it out.' },
  { flags: '--label-file [value]', why: 'labels are not read from files', fix: 'Use -l for each.' },
  {
    flags: '--volume-driver [value]',
    why: '-v takes paths of the host',
    fix: 'Use a PersistentVolumeClaim in a file.',
  },
  { flags: '--replace', why: 'a pod that runs is not replaced', fix: 'Remove it first: `podvm rm -f NAME`.' },
  { flags: '--tz [value]', why: 'a Pod expresses it differently', fix: 'Use -e TZ=AREA/CITY.' },
  { flags: '--timeout [value]', why: 'a Pod expresses it differently', fix: inFile('spec.activeDeadlineSeconds') },
  { flags: '--secret [value]', why: 'a Pod expresses it differently', fix: inFile('a Secret and a volume of it') },
  { flags: '--image [value]', why: 'the image is the first word', fix: 'Use --name NAME IMAGE.' },
  { flags: '--port [value]', why: 'every port of a pod can be reached', fix: 'Use -p to publish one on the host.' },
  { flags: '--image-pull-policy [value]', why: 'there is one way to write it', fix: 'Use --pull.' },
  { flags: '--labels [value]', why: 'there is one way to write it', fix: 'Use -l for each.' },
  {
    flags: '-n, --namespace [value]',
    why: 'a Pod of the command line is in default',
    fix: inFile('metadata.namespace'),
  },
  { flags: '--authfile [value]', why: 'a run uses the logins of its user', fix: 'Use `podvm login`.' },
];

const refusals = refusalsOf(refusedFlags);
export const refusedOptions = refusals.options;
export const refuseFlags = refusals.refuse;
