import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { delegateName } from '#cri/delegate/delegate.ts';
import { CriClient } from '#cri/rpc/cri-client.ts';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { openDeadline } from '#host/deadline.ts';
import { isThere, readFileIfThere } from '#host/file/files.ts';
import { launcherName, launcherOf } from '#shim/launcher.ts';
import { hasRuntime, runtimeType } from '../containerd/containerd-config.ts';
import type { Finding } from '#api/finding.ts';
import { type ContainerdPlaces, mainPath } from '../containerd/install-containerd.ts';

/** Time for an answer of another runtime, in `ms`. */
const answerMs = 10_000;

const install = 'Run `podvm install containerd`, and restart containerd.';

/** Checks whether this node's containerd can give pods to podvm, if podvm was installed there. */
export async function containerdFindings(
  { shimSocketPath, version }: { readonly shimSocketPath: string; readonly version: string },
  places: ContainerdPlaces,
  ending: AbortSignal,
): Promise<readonly Finding[]> {
  const name = 'containerd';
  const launcher = join(places.programs, launcherName);
  const content = await readFileIfThere(launcher);
  if (content === undefined) return [{ name, status: 'ok', detail: 'podvm is not one of its runtimes' }];
  const failed = (detail: string, fix: string): readonly Finding[] => [{ name, status: 'fail', detail, fix }];
  if (content !== launcherOf(shimSocketPath, version))
    return failed(`${launcher} is of another version of podvm, or of another socket`, install);
  try {
    if (!(await hasRuntime(places.containerd, mainPath(places), ending)))
      return failed(`its configuration lacks the runtime podvm`, install);
  } catch (error) {
    ending.throwIfAborted();
    return failed(printable(messageOf(error), 500), 'Correct the configuration of containerd.');
  }
  if (!(await isThere(shimSocketPath)))
    return failed(`${shimSocketPath} is missing: podvm daemon does not run`, 'Start it: `systemctl start podvm`.');
  try {
    using client = new CriClient(places.socket, {
      name: 'containerd',
      awayFix: 'Start containerd.',
      corruptFix: 'Check that it serves CRI v1.',
    });
    using deadline = openDeadline(answerMs, ending);
    const { info } = await client.ask(RuntimeService.method.status, { verbose: true }, deadline.signal);
    if (info['config']?.includes(runtimeType) !== true)
      return failed('it runs without the runtime podvm', 'Restart it: `systemctl restart containerd`.');
    return [{ name, status: 'ok', detail: 'podvm is one of its runtimes' }];
  } catch (error) {
    ending.throwIfAborted();
    return failed(printable(messageOf(error), 500), 'Check `systemctl status containerd`.');
  }
}

/** Checks whether the runtime of the setting `delegate` answers. */
export async function delegateFindings(
  delegate: { readonly socketPath: string } | undefined,
  ending: AbortSignal,
): Promise<readonly Finding[]> {
  const name = 'delegate';
  if (delegate === undefined) return [];
  try {
    using client = new CriClient(delegate.socketPath, delegateName);
    using deadline = openDeadline(answerMs, ending);
    const { runtimeName, runtimeVersion } = await client.ask(RuntimeService.method.version, {}, deadline.signal);
    const detail = `${printable(runtimeName, 100)} ${printable(runtimeVersion, 100)}, at ${delegate.socketPath}`;
    return [{ name, status: 'ok', detail }];
  } catch (error) {
    ending.throwIfAborted();
    return [{ name, status: 'fail', detail: printable(messageOf(error), 500), fix: delegateName.awayFix }];
  }
}
