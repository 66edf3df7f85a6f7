import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { poll } from '#host/wait.ts';
import type { Crictl } from '../conformance/crictl.ts';

export const baseImage = 'localhost/podvm/base:latest';
/** Image whose process waits: in runc's pods, it stands for the pod. */
export const pauseImage = 'localhost/podvm/pause:1';
/** Two layers; the upper one removes a file of the lower one. */
export const layeredImage = 'localhost/podvm/layered:1';
/** With a layer that no other image has. */
export const briefImage = 'localhost/podvm/brief:1';

const containerStatus = v.object({
  status: v.object({ state: v.string(), exitCode: v.number(), reason: v.string(), message: v.string() }),
});
const podStatus = v.object({ status: v.object({ network: v.object({ ip: v.string() }) }) });

/** Timeout of the end of a container, in `ms`. */
const endTimeoutMs = 60_000;

/** A pod with its containers, made as a kubelet makes them. */
export class Pod {
  readonly id: string;
  readonly #crictl: Crictl;
  readonly #directory: string;
  readonly #config: string;

  private constructor(crictl: Crictl, directory: string, config: string, id: string) {
    this.#crictl = crictl;
    this.#directory = directory;
    this.#config = config;
    this.id = id;
  }

  static async run(crictl: Crictl, work: string, name: string, handler: string, more: object = {}): Promise<Pod> {
    const directory = join(work, name);
    await mkdir(join(directory, 'logs'), { recursive: true });
    const config = join(directory, 'pod.json');
    const pod = {
      metadata: { name, namespace: 'default', uid: `uid-${name}`, attempt: 0 },
      hostname: name,
      log_directory: join(directory, 'logs'),
      dns_config: { servers: ['10.0.0.10'], searches: ['default.svc.cluster.local'], options: ['ndots:5'] },
      linux: {},
      ...more,
    };
    await writeFile(config, JSON.stringify(pod));
    return new Pod(crictl, directory, config, (await crictl.run('runp', '--runtime', handler, config)).trim());
  }

  /** Creates a container that runs a script, without starting it. */
  async create(name: string, script: string, more: object = {}): Promise<string> {
    const path = join(this.#directory, `${name}.json`);
    const config = {
      metadata: { name },
      image: { image: baseImage },
      command: ['sh', '-c', script],
      log_path: `${name}.log`,
      linux: {},
      ...more,
    };
    await writeFile(path, JSON.stringify(config));
    return (await this.#crictl.run('create', this.id, path, this.#config)).trim();
  }

  async start(name: string, script: string, more: object = {}): Promise<string> {
    const id = await this.create(name, script, more);
    await this.#crictl.run('start', id);
    return id;
  }

  /** Status of a container that has ended. */
  async ended(container: string): Promise<v.InferOutput<typeof containerStatus>['status']> {
    const look = async () => {
      const { status } = await this.#crictl.json(containerStatus, 'inspect', container);
      return status.state === 'CONTAINER_EXITED' ? status : undefined;
    };
    const status = await poll(look, { everyMs: 300, signal: AbortSignal.timeout(endTimeoutMs) });
    if (status === undefined) throw new Error(`container ${container} does not end`);
    return status;
  }

  async address(): Promise<string> {
    return (await this.#crictl.json(podStatus, 'inspectp', this.id)).status.network.ip;
  }

  async remove(): Promise<void> {
    await this.#crictl.run('stopp', this.id);
    await this.#crictl.run('rmp', this.id);
  }
}
