import type { Finding } from '#api/finding.ts';
import type { Examination, GuestView } from '#sandbox/figures/examination.ts';

/** Share of lost packets from which they are reported, and their least number. */
const worthLoss = 0.01;
const minLost = 20;
const slowDnsMs = 1000;

const restart = 'Restart the pod; if that does not help, look at `podvm doctor`, which checks the network of the node.';

/** Addresses, gateways and name servers, as the guest sees them. */
export function guestNetworkFindings(guest: GuestView, addresses: readonly string[]): readonly Finding[] {
  if (addresses.length === 0) return [{ name: 'address', status: 'skip', detail: 'the pod has no network' }];
  const missing = addresses.filter((address) => !guest.addresses.has(address));
  const address: Finding =
    missing.length === 0
      ? { name: 'address', status: 'ok', detail: addresses.join(', ') }
      : {
          name: 'address',
          status: 'fail',
          detail: `the guest does not have ${missing.join(', ')}`,
          fix: 'A container with CAP_NET_ADMIN may have removed it. Restart the pod.',
        };
  return [address, ...gatewayFindings(guest), ...dnsFindings(guest)];
}

function gatewayFindings({ gateways }: GuestView): readonly Finding[] {
  const name = 'gateway';
  if (gateways.length === 0) {
    return [
      {
        name,
        status: 'warn',
        detail: 'the guest has no default route',
        fix: `The pod reaches its own subnet only. ${restart}`,
      },
    ];
  }
  return gateways.map(({ address, outcome }): Finding => {
    if (outcome === 'reached') return { name, status: 'ok', detail: `${address} answers` };
    if (outcome === 'quiet') {
      return { name, status: 'ok', detail: `${address} neither answers nor refuses, which a firewall may cause` };
    }
    return { name, status: 'fail', detail: `${address} does not answer`, fix: restart };
  });
}

function dnsFindings({ nameservers }: GuestView): readonly Finding[] {
  const name = 'dns';
  if (nameservers.length === 0) {
    const fix =
      "Set the pod's dnsPolicy and dnsConfig, or a name server in /etc/resolv.conf of the node that pods can reach.";
    return [{ name, status: 'warn', detail: "the pod's resolv.conf names no server", fix }];
  }
  return nameservers.map(({ address, name: asked, answer }): Finding => {
    if ('why' in answer) {
      const why = /: (E[A-Z]+|no answer)$/.exec(answer.why)?.[1] ?? answer.why;
      return {
        name,
        status: 'fail',
        detail: `${address}: ${why === 'ECONNREFUSED' ? 'nothing listens there (ECONNREFUSED)' : why}`,
        fix: `Make sure that the name server at ${address} runs and that no network policy keeps pods from port 53, or change the pod's dnsConfig.`,
      };
    }
    const { outcome, ms } = answer.value;
    if (outcome === undefined) {
      return {
        name,
        status: 'fail',
        detail: `${address} answers with something that is not DNS`,
        fix: 'Find out which program has port 53 there.',
      };
    }
    const told = `${address} answers about ${asked} in ${Math.round(ms)} ms`;
    if (outcome !== 'NOERROR') {
      return {
        name,
        status: 'warn',
        detail: `${told}: ${outcome}`,
        fix: 'The server works, but cannot resolve. Look at its log.',
      };
    }
    if (ms <= slowDnsMs) return { name, status: 'ok', detail: told };
    return {
      name,
      status: 'warn',
      detail: told,
      fix: 'Each look-up of the pod takes that long. Look at the load of the server.',
    };
  });
}

/** Ports of the host, and what is lost between guest and network. */
export function hostNetworkFindings(
  { lostPorts, dropped, figures }: Pick<Examination, 'lostPorts' | 'dropped' | 'figures'>,
  hostPorts: number,
): readonly Finding[] {
  return [
    ...(hostPorts === 0 ? [] : [portFinding(lostPorts, hostPorts)]),
    ...('value' in figures ? figures.value.interfaces.map(linkFinding) : []),
    droppedFinding(dropped),
  ];
}

function portFinding(lost: readonly string[], all: number): Finding {
  const name = 'host ports';
  if (lost.length === 0) return { name, status: 'ok', detail: `${all} held` };
  const detail = `not held for the pod: ${lost.join(', ')}`;
  return { name, status: 'fail', detail, fix: 'Another program may have the port. Stop it, and restart the pod.' };
}

type Counters = Extract<Examination['figures'], { value: unknown }>['value']['interfaces'][number];

function linkFinding(link: Counters): Finding {
  const name = 'link';
  const lost = link.rxErrors + link.rxDropped + link.txErrors + link.txDropped;
  const detail = `${link.name}: ${link.rxPackets} packets in, ${link.txPackets} out, ${lost} lost`;
  if (lost < minLost || lost <= worthLoss * (link.rxPackets + link.txPackets)) return { name, status: 'ok', detail };
  return {
    name,
    status: 'warn',
    detail,
    fix: 'The guest takes packets too slowly, or sends too many. Raise its CPU limit.',
  };
}

function droppedFinding(dropped: Examination['dropped']): Finding {
  const name = 'refused packets';
  if ('why' in dropped) return { name, status: 'skip', detail: dropped.why };
  const counts = [...(dropped.value ?? [])].filter(([, count]) => count > 0);
  if (counts.length === 0) return { name, status: 'ok', detail: 'none' };
  const detail = counts.map(([reason, count]) => `${count} (${reason})`).join(', ');
  return {
    name,
    status: 'warn',
    detail,
    fix: 'The pod sends what the network refuses; docs/networks.md names the reasons.',
  };
}
