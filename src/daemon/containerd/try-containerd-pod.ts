import { randomUUID } from 'node:crypto';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { CriClient } from '#cri/rpc/cri-client.ts';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { openDeadline } from '#host/deadline.ts';
import { poll } from '#host/wait.ts';

/** Time of containerd for its start, and for a pod, in `ms`. */
const startMs = 30_000;
const podMs = 120_000;
/** Time to remove the pod of a try that has failed or was interrupted, in `ms`. */
const removeMs = 30_000;
const everyMs = 200;
const maxWordsChars = 1000;
const name = 'podvm-try';

/**
 * Runs an empty pod of podvm in a containerd that has just been started, as a kubelet would, and removes it. Errors:
 * `failedPrecondition` with the words of containerd.
 */
export async function tryContainerdPod(socketPath: string, ending: AbortSignal): Promise<void> {
  using client = new CriClient(socketPath, {
    name: 'containerd',
    awayFix: 'Start containerd.',
    corruptFix: 'Check that it serves CRI v1.',
  });
  const { runPodSandbox, stopPodSandbox, removePodSandbox, version } = RuntimeService.method;
  using deadline = openDeadline(podMs, ending);
  const { signal } = deadline;
  const answers = () => client.ask(version, {}, signal).catch(() => undefined);
  let podSandboxId: string | undefined;
  const metadata = { name, namespace: name, uid: randomUUID(), attempt: 0 };
  try {
    await poll(answers, { everyMs, signal: AbortSignal.any([signal, AbortSignal.timeout(startMs)]) });
    const config = { metadata, hostname: name, linux: {} };
    ({ podSandboxId } = await client.ask(runPodSandbox, { config, runtimeHandler: 'podvm' }, signal));
    await client.ask(stopPodSandbox, { podSandboxId }, signal);
    await client.ask(removePodSandbox, { podSandboxId }, signal);
  } catch (cause) {
    if (podSandboxId !== undefined) {
      // Also ends one that could not be stopped. Its failure is not the first.
      await client.ask(removePodSandbox, { podSandboxId }, AbortSignal.timeout(removeMs)).catch(() => undefined);
    }
    ending.throwIfAborted();
    const words = printable(messageOf(cause), maxWordsChars);
    throw new PodvmError('failedPrecondition', `Podvm is installed in containerd, but no pod runs there: ${words}`, {
      cause,
      fix: 'See `podvm doctor`; a pod also needs a CNI network, and the sandbox image of containerd.',
    });
  }
}
