import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { openDeadline } from '#host/deadline.ts';
import { run } from '#host/process/run.ts';
import { createProgress } from '#setup/progress.ts';
import { readReady } from '#setup/setup.ts';
import { type BootOutcome, probeDeadlines, tryKvm } from '#vm/qemu/accelerator-probe.ts';
import { type DeviceNode, kvmDevice, openableNode } from '#vm/qemu/jail/device-nodes.ts';
import { type KvmHost, kvmIdentity, readKvmHost } from '#vm/qemu/processor/kvm-host.ts';
import type { Configuration } from '../configuration/configuration.ts';
import type { Finding } from '#api/finding.ts';
import { probeUid } from '../node/node.ts';
import { clockFault, type RestoreOutcome, tryRestore } from './restore-trial.ts';

/** Checks KVM on this host. Boots two guests by it and restores one; changes no stored verdict and no template. */
export async function checkKvm(
  config: Configuration,
  write: (line: string) => void,
  ending: AbortSignal,
): Promise<readonly Finding[]> {
  const directory = join(config.root, 'probe');
  using deadline = openDeadline(240_000, ending);
  const { signal } = deadline;
  const openAsVmm = async () => {
    await mkdir(directory, { recursive: true, mode: 0o711 });
    const own = await mkdtemp(join(directory, 'kvm-'));
    try {
      await chmod(own, 0o711);
      return await openAsUser(kvmDevice, own, probeUid, signal);
    } finally {
      await rm(own, { recursive: true, force: true });
    }
  };
  const boot = async () => {
    const assets = await readReady(config);
    if (assets === undefined) return undefined;
    const request = { assets, directory, uid: probeUid };
    return await createProgress(write).during('booting a guest by KVM', () => tryKvm(request, signal));
  };
  const restore = async () => {
    const assets = await readReady(config);
    if (assets === undefined)
      throw new PodvmError('failedPrecondition', 'set-up has not run', { fix: 'Run `podvm setup`.' });
    const trial = { assets, accelerator: 'kvm', directory, uid: probeUid } as const;
    return await createProgress(write).during('freezing and restoring a guest by KVM', () => tryRestore(trial, signal));
  };
  return await kvmFindings(await readKvmHost(), { openAsVmm, boot, restore });
}

/** Checks that need more than the files of the host. */
interface KvmTrials {
  /** Opens the device as the user of a VMM. Returns which device node the user opened. Errors: those of `openAsUser`. */
  readonly openAsVmm: () => Promise<string>;
  /** Boots a guest by KVM; undefined before set-up. */
  readonly boot: () => Promise<BootOutcome | undefined>;
  /** Freezes and restores a guest by KVM. Errors: those of `tryRestore`. */
  readonly restore: () => Promise<RestoreOutcome>;
}

/**
 * Checks KVM step by step, in the order in which the steps depend on each other. Only the device, its user and the boot
 * decide whether pods can run with it, and the restore whether they start fast; the other results explain a failure, or say what will be slow.
 */
export async function kvmFindings(host: KvmHost, trials: KvmTrials): Promise<readonly Finding[]> {
  const device = deviceFinding(host);
  const isOpen = device.status === 'ok';
  const user = isOpen ? await userFinding(trials) : skipped('kvm user');
  const boot = user.status === 'ok' ? await bootFinding(trials) : skipped('kvm boot');
  const hasBooted = boot.status === 'ok' || boot.status === 'warn';
  const restore = hasBooted ? await restoreFinding(trials) : skipped('kvm restore');
  return [
    processorFinding(host),
    modulesFinding(host),
    device,
    user,
    boot,
    restore,
    nestedFinding(host),
    clockFinding(host),
    templatesFinding(host),
  ];
}

const skipped = (name: string): Finding => ({ name, status: 'skip', detail: 'needs the steps before it' });

function isVirtualMachine({ flags }: KvmHost): boolean {
  return flags.has('hypervisor');
}

function processorFinding(host: KvmHost): Finding {
  const name = 'kvm processor';
  const model = printable(host.processor.get('model name') ?? 'an unnamed processor', 100);
  if (host.flags.has('vmx')) return { name, status: 'ok', detail: `${model}, with VT-x (vmx)` };
  if (host.flags.has('svm')) return { name, status: 'ok', detail: `${model}, with AMD-V (svm)` };
  const isVirtual = isVirtualMachine(host);
  return {
    name,
    status: 'warn',
    detail: `${model} of this ${isVirtual ? 'virtual machine' : 'host'} shows neither vmx nor svm`,
    fix: isVirtual
      ? 'Switch nested virtualisation on for this virtual machine, at its hypervisor or provider, or use a physical host.'
      : "Switch VT-x or AMD-V (SVM) on in the host's firmware.",
  };
}

function modulesFinding({ modules, flags }: KvmHost): Finding {
  const name = 'kvm modules';
  const names = [...modules.keys()];
  const wanted = flags.has('svm') ? 'kvm_amd' : 'kvm_intel';
  if (names.length === 0)
    return { name, status: 'warn', detail: 'none is loaded', fix: `Load the module: \`modprobe ${wanted}\`.` };
  const detail = names.join(', ');
  if (modules.has('kvm_intel') || modules.has('kvm_amd')) return { name, status: 'ok', detail };
  const others = names.filter((each) => each !== 'kvm');
  if (others.length === 0)
    return {
      name,
      status: 'warn',
      detail: `${detail}, without that of the processor`,
      fix: `Load the module: \`modprobe ${wanted}\`. If it fails, \`dmesg\` says why.`,
    };
  return {
    name,
    status: 'warn',
    detail: `${detail}: not the KVM of Intel or AMD processors`,
    fix: 'Use a host with kvm_intel or kvm_amd. Only the trial boot below says whether another KVM works.',
  };
}

function deviceFinding({ absent }: KvmHost): Finding {
  const name = '/dev/kvm';
  if (absent === undefined) return { name, status: 'ok', detail: 'opens' };
  const isMissing = absent.includes('ENOENT');
  return {
    name,
    status: 'fail',
    detail: printable(absent, 200),
    fix: isMissing
      ? 'Correct what the results above say. In a container, pass the device: `--device /dev/kvm`.'
      : 'In a container, allow the device (`--device /dev/kvm`); on a host, `dmesg | grep -i kvm` says why KVM is off.',
  };
}

async function userFinding({ openAsVmm }: KvmTrials): Promise<Finding> {
  const name = 'kvm user';
  try {
    return { name, status: 'ok', detail: await openAsVmm() };
  } catch (error) {
    if (error instanceof PodvmError && error.kind === 'cancelled') throw error;
    return {
      name,
      status: 'fail',
      detail: `the user of a VMM cannot open the device: ${messageOf(error)}`,
      fix: 'Use a state directory (--root) on a file system without `nodev`; in a container, allow mknod and `/dev/kvm`.',
    };
  }
}

async function bootFinding({ boot }: KvmTrials): Promise<Finding> {
  const name = 'kvm boot';
  const outcome = await boot();
  const failed = (detail: string, fix: string): Finding => ({ name, status: 'fail', detail, fix });
  const emulate = 'Set the accelerator to `tcg`, or to `auto`, which emulates where KVM does not work.';
  switch (outcome?.outcome) {
    case undefined:
      return failed('cannot be tried before set-up', 'Run `podvm setup`.');
    case 'works': {
      const detail = `a guest runs its first program after ${outcome.bootMs} ms`;
      if (outcome.bootMs <= probeDeadlines.kvmMs) return { name, status: 'ok', detail };
      const fix = `Use an idle host, or one that is not nested: \`auto\` takes KVM only below ${probeDeadlines.kvmMs} ms, or where it is faster than emulation.`;
      return { name, status: 'warn', detail, fix };
    }
    case 'slow':
      return failed(`KVM answers, but no guest program ran within ${outcome.deadlineMs} ms`, emulate);
    case 'failed':
      return failed(printable(outcome.detail, 500), outcome.fix ?? emulate);
    case 'absent':
    case 'untried':
      return failed('the device could not be opened', emulate);
  }
}

/** Starts of pods restore a template; a boot shows neither that KVM takes its registers back, nor what the clock does. */
async function restoreFinding({ restore }: KvmTrials): Promise<Finding> {
  const name = 'kvm restore';
  const fix = 'Set `template` to `off`: machines then boot, which takes longer. Please report this result.';
  try {
    const outcome = await restore();
    const fault = clockFault(outcome);
    const detail = `a restored guest answers after ${outcome.restoreMs} ms`;
    if (fault === undefined) return { name, status: 'ok', detail: `${detail}, and its clock continues` };
    return { name, status: 'fail', detail: `${detail}, but its clock is wrong: ${fault}`, fix };
  } catch (error) {
    if (error instanceof PodvmError && error.kind === 'cancelled') throw error;
    const known = error instanceof PodvmError ? error.fix : undefined;
    return { name, status: 'fail', detail: printable(messageOf(error), 500), fix: known ?? fix };
  }
}

function nestedFinding(host: KvmHost): Finding {
  const name = 'kvm nesting';
  const hidden = 'guests are shown no virtualisation of their own';
  if (!isVirtualMachine(host)) return { name, status: 'ok', detail: `a physical host; ${hidden}` };
  return {
    name,
    status: 'warn',
    detail: `this host is a virtual machine, so that its guests are nested; ${hidden}`,
    fix: 'Expect slower devices and page faults: each exit of a guest passes two hypervisors. A physical host has one.',
  };
}

/** Clock sources of a host from which KVM derives a clock that guests read without an exit (arch/x86/kvm/x86.c). */
const masterClocks = ['tsc', 'hyperv_clocksource_tsc_page'];

function clockFinding({ clockSource, flags, tscKHz }: KvmHost): Finding {
  const name = 'kvm clock';
  const scales = flags.has('tsc_scaling') || flags.has('tsc_scale');
  const frequency = tscKHz === undefined ? 'unknown' : `${Math.round(tscKHz / 1000)} MHz`;
  const tsc = `TSC ${frequency}, ${scales ? 'with' : 'without'} scaling`;
  if (clockSource !== undefined && masterClocks.includes(clockSource))
    return { name, status: 'ok', detail: `the host's clock is ${clockSource}; ${tsc}` };
  return {
    name,
    status: 'warn',
    detail: `the host's clock is ${printable(clockSource ?? 'unknown', 100)}, not the TSC; ${tsc}`,
    fix: 'Each reading of the clock in a guest is a system call. `dmesg | grep -i tsc` says why the host does not use its TSC.',
  };
}

function templatesFinding(host: KvmHost): Finding {
  const microcode = printable(host.processor.get('microcode') ?? 'unknown', 100);
  const detail = `made for this host, ${kvmIdentity(host)}: kernel ${printable(host.kernel.release, 100)}, microcode ${microcode}, processor, TSC, and settings of ${host.modules.size} modules. They are made again when one of these changes`;
  return { name: 'kvm templates', status: 'ok', detail };
}

/**
 * Opens the device as an unprivileged user, with the device node that a machine in `directory` would get. Errors: those
 * of `openableNode` and `run`; `cancelled`.
 */
export async function openAsUser(
  device: DeviceNode,
  directory: string,
  uid: number,
  signal: AbortSignal,
): Promise<string> {
  const node = await openableNode(device, directory, uid, signal);
  try {
    const identity = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--no-new-privs', '--bounding-set=-all'];
    await run('setpriv', [...identity, '--', 'sh', '-c', 'exec 3<>"$1"', 'sh', node], { signal });
    return node === device.path
      ? `any user may open ${device.path}`
      : `each machine gets a node of its own; ${device.path} is closed to its user`;
  } finally {
    if (node !== device.path) await rm(node, { force: true });
  }
}
