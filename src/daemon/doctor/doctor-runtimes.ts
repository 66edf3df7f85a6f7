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
import { type ContainerdPlaces, isInContainerd, mainPath } from '../containerd/install-containerd.ts';
import { isInK3s, k3sConfig, type K3sPlaces } from '../containerd/install-k3s.ts';

/** Time for an answer of another runtime, in `ms`. */
const answerMs = 10_000;

/** A containerd of this node, as `podvm install` has changed it. */
interface Installed {
  readonly name: 'containerd' | 'k3s';
  readonly socket: string;
  /** Whether its configuration has the runtime podvm. */
  readonly isConfigured: (signal: AbortSignal) => Promise<boolean>;
}

/** The places of every containerd that `podvm install` can change. */
export interface RuntimePlaces {
  readonly containerd: ContainerdPlaces;
  readonly k3s: K3sPlaces;
}

/** Checks whether a containerd of this node can give pods to podvm, if podvm was installed there. */
export async function containerdFindings(
  podvm: { readonly shimSocketPath: string; readonly version: string },
  places: RuntimePlaces,
  ending: AbortSignal,
): Promise<readonly Finding[]> {
  const launcher = join(places.containerd.programs, launcherName);
  const content = await readFileIfThere(launcher);
  if (content === undefined) return [{ name: 'containerd', status: 'ok', detail: 'podvm is not one of its runtimes' }];
  const isThisOne = content === launcherOf(podvm.shimSocketPath, podvm.version);
  const found: Finding[] = [];
  for (const installed of await installations(places)) {
    const { name } = installed;
    const problem = isThisOne
      ? await problemOf(installed, podvm.shimSocketPath, ending)
      : {
          detail: `${launcher} is of another version of podvm, or of another socket`,
          fix: `Run \`podvm install ${name}\`, and restart ${name}.`,
        };
    if (problem === undefined) found.push({ name, status: 'ok', detail: 'podvm is one of its runtimes' });
    else found.push({ name, status: 'fail', ...problem });
  }
  return found;
}

/** Without a section in any configuration, that of containerd is the one that lacks it. */
async function installations(places: RuntimePlaces): Promise<readonly Installed[]> {
  const k3s: Installed = {
    name: 'k3s',
    socket: places.k3s.socket,
    isConfigured: async () => (await readFileIfThere(k3sConfig(places.k3s)))?.includes(runtimeType) === true,
  };
  const containerd: Installed = {
    name: 'containerd',
    socket: places.containerd.socket,
    isConfigured: (signal) => hasRuntime(places.containerd.containerd, mainPath(places.containerd), signal),
  };
  if (!(await isInK3s(places.k3s))) return [containerd];
  return (await isInContainerd(places.containerd)) ? [containerd, k3s] : [k3s];
}

/** The service of an agent of k3s has another name than that of a server. */
const ofAgents = (name: Installed['name']): string => (name === 'k3s' ? ', or `k3s-agent` on an agent' : '');

async function problemOf(
  { name, socket, isConfigured }: Installed,
  shimSocketPath: string,
  ending: AbortSignal,
): Promise<{ readonly detail: string; readonly fix: string } | undefined> {
  try {
    if (!(await isConfigured(ending)))
      return {
        detail: 'its configuration lacks the runtime podvm',
        fix: `Run \`podvm install ${name}\`, and restart ${name}.`,
      };
  } catch (error) {
    ending.throwIfAborted();
    return { detail: printable(messageOf(error), 500), fix: `Correct the configuration of ${name}.` };
  }
  if (!(await isThere(shimSocketPath)))
    return {
      detail: `${shimSocketPath} is missing: podvm daemon does not run`,
      fix: 'Start it: `systemctl start podvm`.',
    };
  try {
    using client = new CriClient(socket, {
      name,
      awayFix: `Start ${name}.`,
      corruptFix: 'Check that it serves CRI v1.',
    });
    using deadline = openDeadline(answerMs, ending);
    const { info } = await client.ask(RuntimeService.method.status, { verbose: true }, deadline.signal);
    if (info['config']?.includes(runtimeType) === true) return undefined;
    return {
      detail: 'it runs without the runtime podvm',
      fix: `Restart it: \`systemctl restart ${name}\`${ofAgents(name)}.`,
    };
  } catch (error) {
    ending.throwIfAborted();
    return { detail: printable(messageOf(error), 500), fix: `Check \`systemctl status ${name}\`${ofAgents(name)}.` };
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
