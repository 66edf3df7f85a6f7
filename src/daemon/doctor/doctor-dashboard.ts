import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Finding } from '#api/finding.ts';
import { request } from '#host/socket/node-http.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { dashboardUrlFile } from '../keep-dashboard.ts';

const name = 'dashboard';
const answerMs = 5_000;

/** Whether the daemon serves the dashboard that its settings ask for, or another program has taken the port. */
export async function dashboardFindings({
  dashboardPort: port,
  socketPath,
}: Pick<Configuration, 'dashboardPort' | 'socketPath'>): Promise<readonly Finding[]> {
  if (port === undefined) return [];
  const url = (await readFile(dashboardUrlFile(socketPath), 'utf8').catch(() => '')).trim();
  if (url !== '') {
    if (await isOurs(new URL(url))) return [{ name, status: 'ok', detail: `served on ${new URL(url).host}` }];
  }
  if (port === 0 || !(await isOpen(port))) {
    return [{ name, status: 'skip', detail: 'no daemon serves it' }];
  }
  return [
    {
      name,
      status: 'warn',
      detail: `another program listens on 127.0.0.1 port ${port}, so the daemon does not serve the dashboard`,
      fix: `End that program (\`ss -ltnp 'sport = ${port}'\` names it), or set dashboardAddress to a port below 1024, which other users cannot take.`,
    },
  ];
}

/** Whether a dashboard answers to the token of the address. */
async function isOurs(url: URL): Promise<boolean> {
  const authorization = `Bearer ${new URLSearchParams(url.hash.slice(1)).get('token') ?? ''}`;
  const signal = AbortSignal.timeout(answerMs); // any user of the host can be there, and never end an answer
  const sent = request(new URL('/v1/version', url), { headers: { authorization }, agent: false, signal });
  return await new Promise((resolve) => {
    sent.once('response', (answer) => {
      resolve(answer.statusCode === 200);
      sent.destroy();
    });
    sent.once('error', () => resolve(false));
    sent.once('close', () => resolve(false)); // no answer
    sent.end();
  });
}

async function isOpen(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: answerMs });
    const tell = (isThere: boolean) => () => {
      socket.destroy();
      resolve(isThere);
    };
    socket.once('connect', tell(true));
    socket.once('timeout', tell(true)); // its queue of connections is full
    socket.once('error', tell(false));
  });
}
