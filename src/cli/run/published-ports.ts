import { isIP } from 'node:net';
import { wrongFlag } from './flag-error.ts';

export interface PublishedPort {
  readonly containerPort: number;
  readonly hostPort: number;
  readonly hostIP?: string;
  readonly protocol?: 'UDP' | 'SCTP';
}

const range = String.raw`(\d{1,5}(?:-\d{1,5})?)`;
const form = new RegExp(
  String.raw`^(?:(?:(\[[0-9a-fA-F:]+\]|[0-9.]+):)?${range}:)?${range}(?:\/(tcp|udp|sctp))?$`,
  'i',
);
const shape = 'Write it as [IP:]HOST-PORT:CONTAINER-PORT[/PROTOCOL], such as 8080:80 or 127.0.0.1:5353:53/udp.';
/** Limit of the ports in one range; a Pod's container has the same. */
const maxPorts = 1000;

/** The ports of all `-p`, ranges included. */
export function portsOf(flag: string, values: readonly string[]): PublishedPort[] {
  return values.flatMap((value) => {
    const refuse = (why: string) => wrongFlag(flag, value, why, shape);
    const [, ip, hosts, containers, protocol = 'tcp'] = form.exec(value) ?? [];
    if (containers === undefined) throw refuse('it is not a published port');
    if (hosts === undefined) {
      const same = `Use ${flag} ${containers}:${containers}`;
      const fix = /^\d+$/.test(value)
        ? `${same}, or \`podvm port-forward POD :${containers}\`, which takes any free port.`
        : `${same}${protocol === 'tcp' ? '' : `/${protocol}`}.`;
      throw wrongFlag(flag, value, 'a Pod names its port of the host; podvm chooses none', fix);
    }
    const hostIP = ip?.replaceAll(/[[\]]/g, '');
    if (hostIP !== undefined && isIP(hostIP) === 0) throw refuse(`${hostIP} is not an IP address`);
    const from = portsIn(hosts, refuse);
    const to = portsIn(containers, refuse);
    if (from.length !== to.length) throw refuse('the two ranges have different lengths');
    return to.map((containerPort, at) => ({
      containerPort,
      hostPort: from[at] ?? 0,
      ...(hostIP === undefined ? {} : { hostIP }),
      ...protocolOf(protocol.toUpperCase()),
    }));
  });
}

/** Leaves out TCP, which is a Pod's default. */
const protocolOf = (protocol: string): Pick<PublishedPort, 'protocol'> =>
  protocol === 'UDP' || protocol === 'SCTP' ? { protocol } : {};

function portsIn(text: string, refuse: (why: string) => Error): number[] {
  const [first = 0, last = first] = text.split('-').map(Number);
  if (first < 1 || last > 65_535 || last < first) throw refuse('ports are from 1 to 65535');
  if (last - first >= maxPorts) throw refuse(`a range has at most ${maxPorts} ports`);
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}
