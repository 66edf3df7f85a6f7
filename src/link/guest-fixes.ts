/**
 * Fixes for refusals of the agent. An error crosses the wire as a kind and a message; the host adds the fix, so that a
 * guest cannot tell an operator what to run.
 */
const fixes: readonly { readonly says: RegExp; readonly fix: string }[] = [
  { says: /runAsNonRoot is set, and its user is root/, fix: 'Set securityContext.runAsUser to another user.' },
  { says: /: the image has no (?:user|group) /, fix: 'Set securityContext.runAsUser and runAsGroup to numbers.' },
  {
    says: /is not in the pod's user namespace/,
    fix: 'Use ids of the range that the message names, or leave out hostUsers: false.',
  },
  { says: /^Cannot make the pod's user namespace/, fix: 'Correct the mappings of ids: they must not overlap.' },
  {
    says: /^Cannot give a device to a container with a user namespace/,
    fix: 'Leave out the device, or hostUsers: false.',
  },
  {
    says: /^Cannot set sysctl /,
    fix: 'Correct the name and value of the sysctl for the kernel of the machine, or leave it out.',
  },
  { says: /bytes of arguments and variables of a pod's containers/, fix: 'Put large values into files of a volume.' },
  { says: /sub-path: the image has no /, fix: 'Correct the subPath: it must exist in the image.' },
  { says: /sub-path: it must be relative/, fix: 'Correct the subPath of the mount.' },
  { says: /sub-path: it was removed meanwhile/, fix: 'Start the container again.' },
  { says: /^Cannot make the image's volume /, fix: 'Mount a volume of the pod at that path.' },
  { says: /: its processes do not end$/, fix: 'Stop the pod, which ends its machine.' },
  { says: /^Cannot exec: \d+ are running$/, fix: 'End other commands in the pod first.' },
];

/** Returns undefined for a message without a fix. */
export const fixOfGuest = (message: string): string | undefined => fixes.find(({ says }) => says.test(message))?.fix;

/** Exported for the test that compares them with the agent's messages. */
export const guestPatterns: readonly RegExp[] = fixes.map(({ says }) => says);
