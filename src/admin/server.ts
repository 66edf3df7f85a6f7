import { once } from 'node:events';
import { chmod, chown, mkdir, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import type { DiskUsage } from '#api/disk-usage.ts';
import { PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { isServed } from '#host/socket/is-served.ts';
import { createServer } from '#host/socket/node-http.ts';
import { within } from '#host/wait.ts';
import type { ImageStore } from '#image/images.ts';
import { Activity } from './activity.ts';
import { diagnosisRoutes } from './diagnosis/diagnosis-routes.ts';
import type { EndedPods } from './record/ended-pods.ts';
import { startDebug } from './session/debug-session.ts';
import { serveExec } from './session/exec-session.ts';
import { sendJson } from './http.ts';
import { imageRoutes } from './routes/image-routes.ts';
import { serveInput } from './session/input-session.ts';
import { CronJobs } from './pods/cron-jobs.ts';
import { Jobs } from './pods/jobs.ts';
import { lifeRoutes } from './routes/life-routes.ts';
import { NewestCalls } from './newest-calls.ts';
import { NodePods, type PodKeeping, type RunParts } from './pods/node-pods.ts';
import { NodeServices, type NodeServicesParts } from './pods/node-services.ts';
import { findAttached, findForwarded, findInput, podRoutes, startExec } from './routes/pod-routes.ts';
import { servePortForward } from './session/port-forward-session.ts';
import { replaceFailed } from './pods/replace-failed.ts';
import { type Asked, answerBy, find, type Routes, type Table } from './routes.ts';
import { type ObjectsSessionParts, serveObjects } from './objects/objects-session.ts';
import { applyObjects } from './objects/apply.ts';
import { deleteObjects } from './objects/delete-objects.ts';
import { listObjects } from './objects/list-objects.ts';
import { diffObjects } from './objects/diff-objects.ts';
import { monitoringRoutes, type MonitoringParts } from './routes/monitoring-routes.ts';
import type { NamedVolumes } from '#storage/named-volumes.ts';
import { volumeRoutes } from './routes/volume-routes.ts';
import { serveAttach, serveRun } from './session/run-session.ts';

export interface AdminParts extends RunParts {
  readonly images: ImageStore;
  readonly monitoring: MonitoringParts;
  /** Measures the state directory. */
  readonly diskUsage: (signal: AbortSignal) => Promise<DiskUsage>;
  /** The last lines of this process' log. */
  readonly recentLog: () => string;
  /** Pods that have ended and were not removed. */
  readonly ended: EndedPods;
  readonly volumes: NamedVolumes;
  readonly services: NodeServicesParts;
  /** File that keeps the CronJobs for the next node. */
  readonly cronJobsPath: string;
  /** Directory that keeps the Jobs for the next node. */
  readonly jobsDirectory: string;
  /** Serves `WS /v1/command`: runs a command for its caller. Undefined: refuses it, so that the caller's own process runs it. */
  readonly serveCommand?: (client: WebSocket) => Promise<void>;
  /** Settings for pods that outlive this process and their clients; undefined in a process that ends with a command. */
  readonly keeping?: PodKeeping;
}

/**
 * The admin server. Disposing refuses new clients, leaves the pods that clients have started to the next process or, without
 * `keeping`, ends them, and removes the socket.
 */
export interface AdminServer extends AsyncDisposable {
  /** Ends all pods that clients have started. */
  endPods(): Promise<void>;
  /** Resolves when no client has a `podvm run` in progress. */
  idle(): Promise<void>;
  /** Resolves when for `ms` no pod has run and no client has called, or when `signal` aborts. */
  idleFor(ms: number, signal: AbortSignal): Promise<void>;
}

/** Largest WebSocket message from a client, in bytes: a manifest. */
const maxMessageBytes = 16 * 1024 * 1024;
/** Largest request header, in bytes. An exec URL holds a command of up to 2 MiB, three times as much when encoded. */
const maxHeaderBytes = 8 * 1024 * 1024;
/** Time for sessions to end by themselves when this process ends, in ms. */
const farewellMs = 1_000;

/**
 * Takes over the pods of an earlier process, and serves the admin API (`#api`) on a unix socket that only root may open, and
 * the members of the group `gid`.
 * Errors: `busy` when another process serves it.
 */
export async function serveAdmin(
  socketPath: string,
  parts: AdminParts,
  { gid }: { readonly gid?: number | undefined } = {},
): Promise<AdminServer> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  await removeStale(socketPath);
  const runs = new Set<Promise<void>>();
  const activity = new Activity(parts.clock);
  const services = await NodeServices.open({ ...parts.services, clock: parts.clock, log: parts.log });
  const pods = new NodePods({ ...parts, nameserver: () => services.nameserver }, activity);
  const { cronJobsPath, clock, log } = parts;
  const isKept = parts.keeping !== undefined;
  const replacing = replaceFailed({ pods, activity, clock, log, takesDue: isKept });
  const jobs = new Jobs({ directory: isKept ? parts.jobsDirectory : undefined, clock, log, activity, pods });
  const calls = new NewestCalls();
  const startNoMore = () => {
    calls.end();
    cronJobs.stop();
    jobs.stop();
    replacing.cancel();
  };
  const takenOver = await pods.recover();
  await services.follow(pods);
  await jobs.recover(takenOver);
  const cronJobs = await CronJobs.open({ path: cronJobsPath, clock, log, activity, jobs, pods, begins: isKept });
  pods.startAfterBoot(); // after `follow`, so that these pods get the name server of Services
  const routes = {
    ...imageRoutes(parts.images, () => new Set(pods.imagesInUse(parts.images))),
    ...podRoutes(pods, { ...parts, startNoMore }),
    ...lifeRoutes(pods, parts.ended, replacing.cancelOf),
    ...volumeRoutes(parts.volumes, pods),
    ...diagnosisRoutes(pods, parts.monitoring, parts.images, parts.recentLog),
    ...monitoringRoutes(parts.monitoring),
    'GET /v1/objects': async ({ response }) =>
      sendJson(response, 200, await listObjects({ ...parts, pods, jobs, cronJobs, services })),
    'GET /v1/disk-usage': async ({ response, signal }) => sendJson(response, 200, await parts.diskUsage(signal)),
  } satisfies Routes;
  const server = createServer({ maxHeaderSize: maxHeaderBytes }, answerBy(routes));
  server.on('request', (_, response) => {
    const active = activity.begin();
    response.once('close', () => active[Symbol.dispose]());
  });
  const sockets = new WebSocketServer({ noServer: true, maxPayload: maxMessageBytes, perMessageDeflate: false });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('error', (error) => parts.log.warn('client failed', { err: error.message }));
      const active = activity.begin();
      const { log, clock, volumes, keeping, serveCommand } = parts;
      const given = {
        ...{ log, clock, volumes, services, jobs, cronJobs, calls, mayDetach: keeping !== undefined, pods },
        ...(serveCommand && { serveCommand }),
      };
      const session = converse(given, request, client).catch((error: unknown) => {
        log.error('session failed', error);
        client.terminate();
      });
      runs.add(session);
      void session.finally(() => {
        runs.delete(session);
        active[Symbol.dispose]();
      });
    });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  if (gid !== undefined) await chown(socketPath, process.getuid?.() ?? 0, gid);
  await chmod(socketPath, gid === undefined ? 0o600 : 0o660);
  return {
    endPods: async () => {
      startNoMore();
      await pods.end();
    },
    async idle() {
      while (runs.size > 0) await Promise.all(runs);
    },
    idleFor: (ms, signal) => activity.idleFor(ms, signal),
    async [Symbol.asyncDispose]() {
      server.close();
      cronJobs.leave();
      await replacing[Symbol.asyncDispose]();
      jobs.leave();
      await pods[Symbol.asyncDispose]();
      await services[Symbol.asyncDispose]();
      await cronJobs[Symbol.asyncDispose]();
      await jobs[Symbol.asyncDispose]();
      await within(Promise.all(runs), { ms: farewellMs }); // sessions that follow pods notify their clients and end
      for (const client of sockets.clients) client.close(1001);
      await Promise.all(runs);
      server.closeAllConnections();
      await rm(socketPath, { force: true });
    },
  };
}

async function removeStale(socketPath: string): Promise<void> {
  const answered = await isServed(socketPath);
  if (answered)
    throw new PodvmError('busy', `Cannot serve ${socketPath}: another podvm serves it`, {
      fix: 'Stop that podvm, or choose another directory with --root.',
    });
  await rm(socketPath, { force: true });
}

/** Parts that sessions need. */
type SessionParts = ObjectsSessionParts & Pick<AdminParts, 'serveCommand'>;
type Session = (client: WebSocket, asked: Asked, parts: SessionParts) => Promise<void>;

/** Sessions by the path of their WebSocket. */
const sessions: Table<Session> = {
  '/v1/run': (client, _, parts) => serveRun(client, parts),
  '/v1/command': (client, _, { serveCommand = refuseCommand }) => serveCommand(client),
  '/v1/apply': (client, _, parts) => serveObjects(client, applyObjects, parts),
  '/v1/delete': (client, _, parts) => serveObjects(client, deleteObjects, parts),
  '/v1/diff': (client, _, parts) => serveObjects(client, diffObjects, parts),
  '/v1/pods/:namespace/:name/exec': (client, asked, { pods, log }) =>
    serveExec(client, asked.query.get('tty') === 'true', () => startExec(pods, asked), log),
  '/v1/pods/:namespace/:name/debug': (client, asked, { pods, log }) =>
    serveExec(client, asked.query.get('tty') === 'true', () => startDebug(pods, asked, log), log),
  '/v1/pods/:namespace/:name/input': (client, asked, { pods, log }) =>
    serveInput(client, () => findInput(pods, asked), log),
  '/v1/pods/:namespace/:name/attach': (client, asked, { pods, log }) =>
    serveAttach(client, () => findAttached(pods, asked), log),
  '/v1/pods/:namespace/:name/port-forward': (client, asked, { pods, log }) =>
    servePortForward(client, Number(asked.query.get('port')), () => findForwarded(pods, asked), log),
};

function refuseCommand(client: WebSocket): Promise<void> {
  client.close();
  return Promise.resolve();
}

async function converse(parts: SessionParts, request: IncomingMessage, client: WebSocket): Promise<void> {
  let found;
  try {
    found = find(sessions, request);
  } catch (error) {
    return await serveExec(client, false, () => Promise.reject(error), parts.log);
  }
  await found.handler(client, found.asked, parts);
}
