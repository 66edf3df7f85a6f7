import { join } from 'node:path';
import { ImageService, type MountSchema, NamespaceMode, RuntimeService } from '#cri/schema/api_pb.ts';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ClientOf, StreamingClient } from '#cri/testing/grpc-client.ts';
import { familyOf } from './accounts.ts';
import type { Contestant } from './table.ts';

/** A runtime behind CRI, called as by a kubelet. */
export interface CriPeer {
  readonly name: Contestant;
  readonly client: StreamingClient;
  /** Name of its RuntimeClass. */
  readonly handler: string;
  /** Parent of the cgroups of its pods; empty: its own choice. */
  readonly cgroupParent: string;
  readonly daemonPid: number;
  /** Directory of its files on disk. */
  readonly directory: string;
  /** Directory for logs of containers. */
  readonly logs: string;
  /** Ends calls in progress; later calls, for clean-up, are still made. */
  readonly signal: AbortSignal;
  /** Name of a pod in the command lines of its processes. Default: the id of its sandbox. */
  nameOnHost?(sandboxId: string): Promise<string>;
  /** Resolves when all work of earlier calls is done. */
  rest(): Promise<void>;
}

export interface PodOptions {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly mounts?: readonly MessageInitShape<typeof MountSchema>[];
  readonly privileged?: boolean;
}

export type Timed = <T>(verb: string, call: () => Promise<T>) => Promise<T>;
const untimed: Timed = (_, call) => call();

const callTimeoutMs = 330_000;
const execSeconds = 300n;
/** Its verbs, each with a deadline, as in a kubelet's requests: a call that hangs fails. */
export const runtimeOf = (peer: CriPeer): ClientOf<typeof RuntimeService> =>
  withDeadlines(peer, peer.client.of(RuntimeService));
export const imagesOf = (peer: CriPeer): ClientOf<typeof ImageService> =>
  withDeadlines(peer, peer.client.of(ImageService));

function withDeadlines<T extends Readonly<Record<string, unknown>>>({ signal }: CriPeer, client: T): T {
  const options = () => ({ deadline: Date.now() + callTimeoutMs, signal: AbortSignal.any([signal]) });
  const verbs = Object.entries(client).map(([verb, call]) => [
    verb,
    // SAFE: a function for each method
    (request: unknown) => (call as (request: unknown, given: object) => unknown)(request ?? {}, options()),
  ]);
  return Object.fromEntries(verbs) as T; // SAFE: the same verbs
}

let pods = 0;

/** A pod with one running container. */
export class CriPod {
  readonly peer: CriPeer;
  readonly sandboxId: string;
  readonly containerId: string;
  readonly log: string;

  private constructor(peer: CriPeer, sandboxId: string, containerId: string, log: string) {
    this.peer = peer;
    this.sandboxId = sandboxId;
    this.containerId = containerId;
    this.log = log;
  }

  /** `timed` is called with each verb. When a later verb fails, the pod is removed. */
  static async start(peer: CriPeer, pod: PodOptions, timed = untimed): Promise<CriPod> {
    const runtime = runtimeOf(peer);
    const name = `${pod.name}-${(pods += 1)}`;
    const privileged = pod.privileged ?? false;
    const logDirectory = join(peer.logs, name);
    const sandboxConfig = {
      metadata: { name, namespace: 'versus', uid: `uid-${name}`, attempt: 0 },
      hostname: name,
      logDirectory,
      linux: {
        cgroupParent: peer.cgroupParent,
        securityContext: { privileged, namespaceOptions: { pid: NamespaceMode.CONTAINER } },
      },
    };
    const config = {
      metadata: { name: 'main' },
      image: { image: pod.image },
      command: [...pod.command],
      mounts: [...(pod.mounts ?? [])],
      logPath: 'main.log',
      linux: { securityContext: { privileged, namespaceOptions: { pid: NamespaceMode.CONTAINER } } },
    };
    const { podSandboxId } = await timed('runPodSandbox', () =>
      runtime.runPodSandbox({ config: sandboxConfig, runtimeHandler: peer.handler }),
    );
    try {
      const { containerId } = await timed('createContainer', () =>
        runtime.createContainer({ podSandboxId, config, sandboxConfig }),
      );
      await timed('startContainer', () => runtime.startContainer({ containerId }));
      return new CriPod(peer, podSandboxId, containerId, join(logDirectory, 'main.log'));
    } catch (error) {
      await runtime.stopPodSandbox({ podSandboxId });
      await runtime.removePodSandbox({ podSandboxId });
      throw error;
    }
  }

  /** Runs a command and returns its output. Errors: one with its stderr when it fails. */
  async exec(...cmd: readonly string[]): Promise<string> {
    const { containerId } = this;
    const answer = await runtimeOf(this.peer).execSync({ containerId, cmd: [...cmd], timeout: execSeconds });
    const [stdout, stderr] = [answer.stdout, answer.stderr].map((bytes) => Buffer.from(bytes).toString());
    if (answer.exitCode === 0) return stdout ?? '';
    throw new Error(`${this.peer.name}: ${cmd.join(' ').slice(0, 80)} ended with ${answer.exitCode}: ${stderr}`);
  }

  async execMs(): Promise<number> {
    const startedMs = performance.now();
    await this.exec('true');
    return performance.now() - startedMs;
  }

  async address(): Promise<string> {
    const { status } = await runtimeOf(this.peer).podSandboxStatus({ podSandboxId: this.sandboxId });
    if (status?.network?.ip === undefined) throw new Error(`${this.peer.name}: a pod without an address`);
    return status.network.ip;
  }

  /** All processes of the host that are this pod's. */
  async processes(): Promise<readonly number[]> {
    const { peer, sandboxId, containerId } = this;
    const found = await familyOf([(await peer.nameOnHost?.(sandboxId)) ?? sandboxId, containerId]);
    if (found.length === 0) throw new Error(`${this.peer.name}: a pod without processes`);
    return found;
  }

  async remove(timed = untimed): Promise<void> {
    const [runtime, { containerId, sandboxId: podSandboxId }] = [runtimeOf(this.peer), this];
    await timed('stopContainer', () => runtime.stopContainer({ containerId, timeout: 0n }));
    await timed('removeContainer', () => runtime.removeContainer({ containerId }));
    await timed('stopPodSandbox', () => runtime.stopPodSandbox({ podSandboxId }));
    await timed('removePodSandbox', () => runtime.removePodSandbox({ podSandboxId }));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.remove();
  }
}
