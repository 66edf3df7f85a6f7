import { fstatSync } from 'node:fs';
import { join } from 'node:path';
import { serveCri } from '#cri/serve-cri.ts';
import { defaultStreamingSettings, serveStreaming } from '#cri/streaming/server.ts';
import { systemClock } from '#host/clock.ts';
import { createLog, goesToJournal } from '#host/log/log.ts';
import { defaultEnv, run } from '#host/process/run.ts';
import { serveShim } from '#shim/serve-shim.ts';
import { checkUpdatesApart } from '#setup/updates/check-updates-apart.ts';
import { endBackgroundNode } from './background/background-node.ts';
import { type Configuration, updateRequestOf } from './configuration/configuration.ts';
import type { DaemonProcess } from './daemon-process.ts';
import { keepDashboard, type ServedDashboard } from './keep-dashboard.ts';
import { type NodeServer, type NodeServing, openNode } from './node/node.ts';
import { requireRoot } from './background/serve-here.ts';
import { ensureAssets } from './setup-command.ts';
import { watchUpdates } from './watch-updates.ts';

/** What the daemon gets from its program. */
interface DaemonParts {
  readonly keepsHangUp: boolean;
  readonly serveDashboard: (socketPath: string, port: number) => Promise<ServedDashboard>;
  readonly serveCommand: NonNullable<NodeServing['serveCommand']>;
}

/**
 * Runs `podvm daemon`: serves CRI to a kubelet and the admin API to other commands, until SIGTERM, SIGINT, SIGQUIT, or
 * SIGHUP unless that was ignored at the start (nohup). Pods keep running, and the next daemon takes them over. Errors: `denied` without root, and those of set-up and node.
 */
export async function daemonCommand(
  config: Configuration,
  version: string,
  itself: DaemonProcess,
  { keepsHangUp, serveDashboard, serveCommand }: DaemonParts,
): Promise<void> {
  requireRoot('serve a kubelet');
  const write = (text: string) => itself.stderr.write(text);
  const stop = new AbortController();
  const { promise: asked, resolve } = Promise.withResolvers<void>();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP']) {
    itself.on(signal, () => {
      if (signal === 'SIGHUP' && keepsHangUp) return;
      stop.abort(); // repeated signals do not interrupt the shutdown; SIGKILL does
      resolve();
    });
  }
  const assets = await ensureAssets(config, write, stop.signal);
  // A node that a command has started in the background ends; its pods are taken over.
  await endBackgroundNode(config, 'alone', stop.signal);
  const hasPriority = goesToJournal(itself.env, fstatSync(2, { bigint: true }));
  const log = createLog(config.logLevel, write, { format: config.logFormat, hasPriority });
  await using node = await openNode(config, assets, log, stop.signal, 'daemon', {
    serve: serverOf(config, version),
    serveCommand,
  });
  const { dashboardPort } = config;
  await using _dashboard =
    dashboardPort === undefined
      ? undefined
      : await keepDashboard({
          socketPath: config.socketPath,
          serve: () => serveDashboard(config.socketPath, dashboardPort),
          clock: systemClock,
          log,
        });
  log.info('serving', { cri: config.criSocketPath, shim: config.shimSocketPath, admin: config.socketPath });
  const warming = node.warmUp(stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) log.error('no template: pods boot one by one', error);
  });
  await notifyReady(itself.env);
  await using _updates = watchUpdates({
    clock: systemClock,
    log,
    check: (signal) => checkUpdatesApart(updateRequestOf(config), AbortSignal.any([signal, stop.signal])),
  });
  await asked;
  log.info('ending');
  await warming;
}

function serverOf(config: Configuration, version: string): NodeServer {
  return async ({ sandboxes, images, keeper, log, accelerator, networkReadiness }) => {
    await using undo = new AsyncDisposableStack();
    const clock = systemClock;
    const settings = { ...defaultStreamingSettings, ...config.streaming };
    const streaming = undo.use(await serveStreaming(settings, { clock, log }));
    undo.use(
      await serveCri({
        socketPath: config.criSocketPath,
        directory: join(config.root, 'cri'),
        sandboxes,
        images,
        streaming,
        networkReadiness,
        clock,
        log,
        delegate: config.delegate,
        node: {
          version,
          imagesDirectory: join(config.root, 'images'),
          facts: {
            root: config.root,
            accelerator,
            streaming: streaming.baseUrl,
            poolSize: config.poolSize,
            template: config.template,
          },
        },
      }),
    );
    undo.use(await serveShim({ directory: join(config.root, 'shim'), keeper, sandboxes, clock, log }));
    return undo.move();
  };
}

/**
 * Notifies systemd (`Type=notify`) if it started this process. Uses systemd-notify, since Node has no datagram sockets.
 */
async function notifyReady(env: NodeJS.ProcessEnv): Promise<void> {
  const socket = env['NOTIFY_SOCKET'];
  if (socket === undefined) return;
  await run('systemd-notify', ['--ready'], { env: { ...defaultEnv(), NOTIFY_SOCKET: socket } });
}
