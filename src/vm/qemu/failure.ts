import { type ErrorKind, messageOf, PodvmError } from '#base/errors.ts';
import { type GuestText, printable } from '#base/guest-text.ts';

/** Messages of QEMU, bubblewrap and nsenter for a failed start, with an action for the operator. */
const causes: readonly {
  readonly pattern: RegExp;
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly fix: string;
}[] = [
  {
    pattern: /cannot set up guest memory|Cannot allocate memory/,
    kind: 'exhausted',
    reason: 'the host does not have enough free memory',
    fix: 'Give the pod a smaller memory limit or free memory on the host.',
  },
  {
    pattern: /No space left on device/,
    kind: 'exhausted',
    reason: 'no space is left on the disk',
    fix: 'Free space on the file system of the state directory.',
  },
  {
    pattern: /could not configure \/dev\/net\/tun|could not open \/dev\/net\/tun/,
    kind: 'failedPrecondition',
    reason: 'its tap is missing or belongs to another user',
    fix: "Load the tun module (`modprobe tun`) and create the tap for the VMM's user.",
  },
  {
    pattern: /nsenter: .*(No such file|cannot open|Invalid argument)/,
    kind: 'failedPrecondition',
    reason: 'its network namespace is missing',
    fix: 'Start the pod again: another program removed its network namespace.',
  },
  {
    pattern: /bwrap: .*(namespace|uid map|Operation not permitted)/i,
    kind: 'failedPrecondition',
    reason: 'this host forbids unprivileged user namespaces',
    fix: 'Allow them: `sysctl kernel.unprivileged_userns_clone=1` (Debian), or an AppArmor profile for bwrap (Ubuntu). They are not available in a chroot.',
  },
  {
    pattern:
      /bwrap: Can't find source path|could not (open|load) kernel|could not load initrd|execvp .*qemu|bwrap: execvp/,
    kind: 'failedPrecondition',
    reason: 'QEMU, kernel or initramfs is missing',
    fix: 'Run `podvm setup`.',
  },
  {
    pattern: /failed to (set|get) MSR|kvm_(buf_set|put|get)_msrs: Assertion/,
    kind: 'failedPrecondition',
    reason: "this host's KVM refuses a register of the processor that it offers",
    fix: 'Set the accelerator to `tcg`. On a virtual machine, ask its provider for complete nested virtualisation.',
  },
  {
    pattern: /KVM: entry failed, hardware error|error: kvm run failed/,
    kind: 'failedPrecondition',
    reason: 'KVM cannot run the guest on this processor',
    fix: 'Set the accelerator to `tcg`, and see the log of the host: `dmesg | grep -i kvm`.',
  },
  {
    pattern: /Could not access KVM kernel module|failed to initialize kvm/i,
    kind: 'failedPrecondition',
    reason: 'KVM does not work here',
    fix: 'Set the accelerator to `tcg`, or see `podvm doctor`.',
  },
];

/**
 * Makes the error for a VMM whose guest did not come to run: from the last lines of its log, or, if they are not
 * recognised, from the way it ended.
 */
export function startFailure(id: string, tail: readonly GuestText[], cause: unknown, end?: VmmEnd): PodvmError {
  const lines = tail.map((line) => printable(line));
  const text = lines.join('\n');
  const known = causes.find(({ pattern }) => pattern.test(text));
  if (known !== undefined) {
    return new PodvmError(known.kind, `Cannot start machine ${id}: ${known.reason}`, { cause, fix: known.fix, tail });
  }
  const reason = end?.outweighsLog === true ? end.reason : (lines.at(-1) ?? end?.reason ?? messageOf(cause));
  return new PodvmError('internal', `Cannot start machine ${id}: ${reason}`, { cause, tail });
}

export interface VmmEnd {
  /** Whether it explains more than the last line of the log: the VMM was killed, or still runs. */
  readonly outweighsLog: boolean;
  /** Description in one sentence. */
  readonly reason: string;
}
