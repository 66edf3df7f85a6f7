import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { CriPod } from '../cri-peer.ts';
import { type Row, sleeping, type Values } from './row.ts';

/** Duration of one transfer, in `s`. */
const seconds = 3;
const pings = 50;
const maxTries = 20;

const iperf = (address: string, ...more: readonly string[]) => [
  ...['iperf3', '--client', address, '--time', String(seconds), '--json'],
  ...more,
];
const ping = (address: string) => ['ping', '-q', '-c', String(pings), '-i', '0.02', address];
const iperfSchema = v.object({ end: v.object({ sum_received: v.object({ bits_per_second: v.number() }) }) });

type Runs = (command: readonly string[]) => Promise<string>;

/** Measures from this host, from one pod to the other, and within one, where no device is involved. */
export const netRow: Row = async ({ field }) => {
  return async (name): Promise<Values> => {
    const pod = { name: 'net', image: field.images.iperf };
    const peer = field.peer(name);
    await using server = await CriPod.start(peer, { ...pod, command: ['iperf3', '--server'] });
    // The same pod for all that clients in pods measure: a privileged one, since it makes a network namespace.
    await using client = await CriPod.start(peer, { ...pod, command: sleeping, privileged: true });
    const address = await server.address();
    const onHost: Runs = async ([program = '', ...args]) => (await run(program, args)).stdout;
    const inPod: Runs = (command) => client.exec(...command);
    await inPod(['sh', '-ec', serveOverVeth]);
    return {
      hostToPod: await mbps(onHost, iperf(address)),
      podToHost: await mbps(onHost, iperf(address, '--reverse')),
      podToPod: await mbps(inPod, iperf(address)),
      overVeth: await mbps(inPod, iperf(vethAddress)),
      withinPod: await mbps((command) => server.exec(...command), iperf('127.0.0.1')),
      hostToPodUs: roundTripUs(await onHost(ping(address))),
      podToPodUs: roundTripUs(await inPod(ping(address))),
    };
  };
};

const vethAddress = '10.223.0.2';
/** Makes a network namespace in the container, joined to the pod's own by a veth, with a server in it. */
const serveOverVeth = `
ip netns add far
ip link add near type veth peer name far netns far
ip address add 10.223.0.1/30 dev near
ip link set near up
ip -netns far address add ${vethAddress}/30 dev far
ip -netns far link set far up
nsenter --net=/run/netns/far iperf3 --server --daemon`;

/**
 * Tries again after a refusal or a reset: iperf3's server is not there at once, and between transfers it makes its socket
 * again. A bare connection to check whether it listens would count as a failed client.
 */
async function mbps(runs: Runs, command: readonly string[]): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    try {
      return v.parse(iperfSchema, JSON.parse(await runs(command))).end.sum_received.bits_per_second / 1e6;
    } catch (error) {
      if (tries === maxTries) throw error;
      await delay(250);
    }
  }
}

function roundTripUs(said: string): number {
  const [, average] = /min\/avg\/max\S* = [0-9.]+\/([0-9.]+)\//.exec(said) ?? [];
  if (average === undefined) throw new Error(`ping said: ${said.slice(-300)}`);
  return Number(average) * 1000;
}
