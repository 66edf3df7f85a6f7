import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { Served } from '#base/served-services.ts';
import type { Clock } from '#host/clock.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { type Service, serviceSchema } from '#pod/schema/service.ts';
import { hasName, isHeadless, type KnownService, servedOf } from '#pod/manifest/served-services.ts';
import type { LivePod } from './known-pod.ts';
import type { NodePods } from './node-pods.ts';
import { plain } from '../record/same-pod.ts';

/** What serves names and addresses to pods (`#network/service-network.ts`). */
export interface ServiceNetwork {
  /** Returns the address of the name server; undefined where pods use a configured network. */
  serve(served: Served, signal: AbortSignal): Promise<string | undefined>;
  stop(signal: AbortSignal): Promise<void>;
}

export interface NodeServicesParts {
  /** File that keeps the Services for the next node. */
  readonly path: string;
  readonly network: ServiceNetwork;
}

interface OpenParts extends NodeServicesParts {
  readonly clock: Clock;
  readonly log: Log;
}

type Change = 'created' | 'configured' | 'unchanged';

const recordSchema = v.object({
  version: v.literal(1),
  services: v.array(v.object({ service: serviceSchema, address: v.exactOptional(v.pipe(v.string(), v.ipv4())) })),
});

const maxServices = 1000;
const serveMs = 30_000;
/** Interval at which rules and name server are checked, since other programs may remove them. */
const lookAgainMs = 20_000;
/** Addresses 10.196.1.0 and above are for Services; the name server has one of the first 256. */
const subnet = '10.196';
const firstPlace = 256;
const places = 65_536 - firstPlace;

/** One run in the foreground, with which the Services that it has made end. */
export type ServiceRun = symbol;

/** The Services of this node: keeps them, and lets pods reach the pods that they select, as those come and go. */
export class NodeServices implements AsyncDisposable {
  readonly #parts: OpenParts;
  readonly #services = new Map<string, KnownService>();
  /** Runs in the foreground that still use a Service that one of them has made. It ends with the last. */
  readonly #runs = new Map<string, Set<ServiceRun>>();
  #pods: NodePods | undefined;
  #nameserver: string | undefined;
  /** Whether pods may have the name server, also those of an earlier node: its file stays until there are none. */
  #isInUse = false;
  #served: Served | undefined;
  #serving: Promise<void> = Promise.resolve();
  #saving: Promise<void> = Promise.resolve();
  #isAsked = false;
  #cancelLook = () => {};
  #isOver = false;

  private constructor(parts: OpenParts) {
    this.#parts = parts;
  }

  /** Reads the Services that an earlier node has kept. */
  static async open(parts: OpenParts): Promise<NodeServices> {
    const services = new NodeServices(parts);
    const text = await readFileIfThere(parts.path);
    if (text === undefined) return services;
    services.#isInUse = true;
    try {
      for (const { service, address } of v.parse(recordSchema, JSON.parse(text)).services)
        services.#services.set(keyOf(service), { service, address });
    } catch (error) {
      parts.log.error('Services not read: apply their files again', error);
    }
    return services;
  }

  /** Address of the name server for pods that start now; undefined if there are no Services. */
  get nameserver(): string | undefined {
    return this.#nameserver;
  }

  list(): readonly KnownService[] {
    return [...this.#services.values()];
  }

  find(service: Service): Service | undefined {
    return this.#services.get(keyOf(service))?.service;
  }

  /** Follows the pods of the node, which may have run before. Failures are logged. */
  async follow(pods: NodePods): Promise<void> {
    this.#pods = pods;
    for (const live of pods.live()) this.#followPod(live);
    pods.onBegin((live) => this.#followPod(live));
    await this.#refresh().catch((error: unknown) => this.#parts.log.error('Services not served', error));
  }

  /**
   * Makes or changes Services; returns what happened to each, and why pods do not reach them if that is so. Changes
   * none after an error. With `run`, those that are made end with it; without, all stay. Errors: `exhausted`, and those of
   * the file.
   */
  async apply(
    services: readonly Service[],
    run?: ServiceRun,
  ): Promise<{ readonly changes: readonly Change[]; readonly why: string | undefined }> {
    const changes = await this.#change(services, () =>
      services.map((service) => {
        const change = this.#set(service);
        this.#noteRun(keyOf(service), run, change === 'created'); // at once: another run may end meanwhile
        return change;
      }),
    );
    const haveNames = services.some(hasName);
    if (!haveNames && changes.every((change) => change === 'unchanged')) return { changes, why: undefined };
    try {
      await this.#refresh(true);
    } catch (error) {
      const fix = error instanceof PodvmError && error.fix !== undefined ? `. ${error.fix}` : '';
      return { changes, why: `${messageOf(error)}${fix}` };
    }
    const why =
      haveNames && this.#nameserver === undefined
        ? 'they need the built-in network, and another is configured'
        : undefined;
    return { changes, why };
  }

  /** Returns whether the Service was there. Removes it from what pods reach, later if that fails. */
  async remove(service: Service): Promise<boolean> {
    const key = keyOf(service);
    if (!this.#services.has(key)) return false;
    await this.#change([service], () => {
      this.#services.delete(key);
      this.#runs.delete(key); // at once: another run may make it meanwhile
    });
    await this.#refresh().catch((error: unknown) => this.#parts.log.error('Service not removed from pods', error));
    return true;
  }

  /** Removes the Services that end with this run. Failures are logged. */
  async endRun(run: ServiceRun): Promise<void> {
    for (const [key, runs] of this.#runs) {
      if (!runs.delete(run) || runs.size > 0) continue;
      const service = this.#services.get(key)?.service;
      this.#runs.delete(key);
      if (service === undefined) continue;
      await this.remove(service).catch((error: unknown) => this.#parts.log.error('Service not removed', error));
    }
  }

  #noteRun(key: string, run: ServiceRun | undefined, isMade: boolean): void {
    if (run === undefined) this.#runs.delete(key);
    else if (isMade) this.#runs.set(key, new Set([run]));
    else this.#runs.get(key)?.add(run);
  }

  /**
   * Leaves names and addresses to the pods that the next process takes over; without pods, ends what serves them. Failures
   * are logged.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#serving.catch(() => undefined);
    this.#cancelLook(); // after the last work, which plans the next look
    if ((this.#pods?.live().length ?? 0) > 0) return;
    await this.#stop().catch((error: unknown) => this.#parts.log.error('Services not ended', error));
  }

  /** Changes these Services and keeps that for the next node, or leaves them as they were. */
  async #change<T>(services: readonly Service[], act: () => T): Promise<T> {
    const before = services.map((service) => {
      const key = keyOf(service);
      return [key, this.#services.get(key), [...(this.#runs.get(key) ?? [])]] as const;
    });
    try {
      const done = act();
      if (before.some(([key, known]) => this.#services.get(key) !== known)) await this.#save();
      return done;
    } catch (error) {
      for (const [key, known, runs] of before) {
        if (known === undefined) this.#services.delete(key);
        else this.#services.set(key, known);
        if (runs.length === 0) this.#runs.delete(key);
        else this.#runs.set(key, new Set(runs));
      }
      throw error;
    }
  }

  #set(service: Service): Change {
    const key = keyOf(service);
    const known = this.#services.get(key);
    if (known !== undefined && isDeepStrictEqual(plain(known.service.spec), plain(service.spec))) return 'unchanged';
    if (known === undefined && this.#services.size >= maxServices) {
      throw new PodvmError('exhausted', `Cannot make Service ${key}: the node has ${maxServices} Services`, {
        fix: 'Remove some with `podvm delete -f`.',
      });
    }
    const hasAddress = hasName(service) && !isHeadless(service);
    const address = hasAddress ? (known?.address ?? this.#freeAddress(key)) : undefined;
    this.#services.set(key, { service, address });
    return known === undefined ? 'created' : 'configured';
  }

  /** The same for the same name as long as it is free, so that pods that remember it find the Service again. */
  #freeAddress(key: string): string {
    const taken = new Set([...this.#services.values()].map(({ address }) => address));
    const first = createHash('sha256').update(key).digest().readUInt32BE(0);
    for (let tries = 0; ; tries += 1) {
      const place = firstPlace + ((first + tries) % places); // there are more places than Services
      const address = `${subnet}.${place >> 8}.${place & 0xff}`;
      if (!taken.has(address)) return address;
    }
  }

  /** Writes the file, or removes one that is no longer needed, once the write before has ended. */
  #save(): Promise<void> {
    this.#saving = this.#saving
      .catch(() => undefined)
      .then(async () => {
        const services = [...this.#services.values()];
        if (services.length === 0 && !this.#isInUse) await rm(this.#parts.path, { force: true });
        else await writeFileAtomic(this.#parts.path, `${JSON.stringify({ version: 1, services })}\n`);
      });
    return this.#saving;
  }

  #followPod({ pod, over }: LivePod): void {
    const look = () => {
      if (this.#services.size === 0 && this.#nameserver === undefined) return;
      this.#refresh().catch((error: unknown) => this.#parts.log.error('Services not served', error));
    };
    pod.onChange(look);
    void over.then(look);
  }

  /** Serves the present state once the work before is done; calls that come meanwhile share one more round. */
  #refresh(checks = false): Promise<void> {
    if (this.#isOver) return Promise.resolve();
    if (checks) this.#served = undefined;
    if (this.#isAsked) return this.#serving;
    this.#isAsked = true;
    this.#serving = this.#serving
      .catch(() => undefined)
      .then(async () => {
        this.#isAsked = false;
        await this.#serve();
      });
    return this.#serving;
  }

  async #serve(): Promise<void> {
    const live = this.#pods?.live() ?? [];
    const isNeeded = [...this.#services.values()].some(({ service }) => hasName(service));
    if (!isNeeded && (!this.#isInUse || live.length === 0)) return await this.#stop();
    const served = servedOf(
      [...this.#services.values()].filter(({ service }) => hasName(service)),
      live.map(({ pod }) => pod).filter(({ sandbox }) => sandbox?.status.isPaused !== true),
    );
    if (this.#nameserver !== undefined && isDeepStrictEqual(served, this.#served)) return;
    this.#served = undefined;
    this.#cancelLook();
    try {
      this.#nameserver = await this.#parts.network.serve(served, AbortSignal.timeout(serveMs));
      this.#served = served;
      this.#isInUse ||= this.#nameserver !== undefined;
    } finally {
      this.#cancelLook = this.#parts.clock.after(lookAgainMs, () => {
        this.#refresh(true).catch((error: unknown) => this.#parts.log.error('Services not served', error));
      });
    }
  }

  async #stop(): Promise<void> {
    this.#cancelLook();
    this.#nameserver = undefined;
    this.#served = undefined;
    await this.#parts.network.stop(AbortSignal.timeout(serveMs));
    this.#isInUse = false;
    if (this.#services.size === 0) await this.#save();
  }
}

const keyOf = ({ metadata: { namespace, name } }: Service): string => `${namespace}/${name}`;
