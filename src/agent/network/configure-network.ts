import { PodvmError } from '#base/errors.ts';
import type { NetworkConfig } from '#wire/messages.ts';
import type { Files } from '#engine/engine.ts';
import { parseAddress, parsePrefix } from './ip-address.ts';
import { createFlags, message, type NetlinkParts, requestNetlink, u32 } from './rtnetlink.ts';

type Parts = NetlinkParts & Pick<Files, 'list'>;

const [familyIpv4, familyIpv6] = [2, 10];
const interfaceUp = 1;
const noDuplicateDetection = 0x02; // IFA_F_NODAD: the host has chosen the address, and a pod cannot wait a second for it
const [scopeUniverse, scopeLink] = [0, 253];
const onLinkFlag = 4; // RTNH_F_ONLINK: a gateway outside the interface's own subnet, as with /32 addresses

/** The machine's one NIC. */
export class Nic {
  readonly #parts: Parts;
  #last: NetworkConfig | undefined;
  /** Its name, once it is known: /sys shows the NICs of the namespace it was mounted in, and no others. */
  #name: string | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Gives it what the host's network says, and nothing of what an earlier call gave. Errors: as `configureNetwork`. */
  configure(network: NetworkConfig): void {
    const [last] = this.#last?.interfaces ?? [];
    if (last !== undefined) {
      const index = this.#parts.interfaceIndex(last.name);
      for (const address of last.addresses) changeAddress(this.#parts, message.deleteAddress, index, address);
      setLink(this.#parts, index, 0, []); // routes go with address and link
    }
    this.#last = network;
    configureNetwork(this.#parts, network, this.#find());
    this.#name = network.interfaces[0]?.name ?? this.#name;
  }

  /** Hands it to the network namespace of a process, where it has neither address nor route. Nothing without a NIC. */
  moveTo(pid: number): void {
    this.#name = this.#find();
    this.#last = undefined;
    if (this.#name === undefined) return;
    const index = this.#parts.interfaceIndex(this.#name);
    setLink(this.#parts, index, 0, [{ type: 19, value: u32(pid) }]); // IFLA_NET_NS_PID
  }

  #find(): string | undefined {
    return this.#name ?? this.#parts.list('/sys/class/net').find((name) => name !== 'lo');
  }
}

/** Errors: `unsupported`, `invalid`, `failedPrecondition`. */
function configureNetwork(parts: Parts, network: NetworkConfig, nic: string | undefined): void {
  const [wanted, ...more] = network.interfaces;
  if (wanted === undefined) return;
  if (more.length > 0) throw new PodvmError('unsupported', 'Cannot configure the network: a machine has one NIC');
  if (nic === undefined) throw new PodvmError('failedPrecondition', 'Cannot configure the network: there is no NIC');
  const index = parts.interfaceIndex(nic);

  // The kernel takes flags last (do_setlink): a NIC that is up keeps its name.
  setLink(parts, index, interfaceUp, [
    { type: 1, value: new Uint8Array(wanted.mac.split(':').map((byte) => Number.parseInt(byte, 16))) }, // IFLA_ADDRESS
    { type: 4, value: u32(wanted.mtu) }, // IFLA_MTU
    ...(nic === wanted.name ? [] : [{ type: 3, value: zeroTerminated(wanted.name) }]), // IFLA_IFNAME
  ]);
  for (const address of wanted.addresses) changeAddress(parts, message.newAddress, index, address);
  for (const route of network.routes) addRoute(parts, index, route.destination, route.gateway);
}

function setLink(parts: Parts, index: number, flags: number, attributes: { type: number; value: Uint8Array }[]): void {
  const body = new DataView(new ArrayBuffer(16)); // ifinfomsg
  body.setInt32(4, index, true);
  body.setUint32(8, flags, true);
  body.setUint32(12, flags, true);
  requestNetlink(parts, 'set up the NIC', message.newLink, 0, new Uint8Array(body.buffer), attributes);
}

function changeAddress(parts: Parts, type: number, index: number, text: string): void {
  const { bytes, length } = parsePrefix(text);
  const body = new DataView(new ArrayBuffer(8)); // ifaddrmsg
  body.setUint8(0, familyOf(bytes));
  body.setUint8(1, length);
  body.setUint8(2, bytes.length === 16 ? noDuplicateDetection : 0);
  body.setUint32(4, index, true);
  const attributes = [
    { type: 2, value: bytes }, // IFA_LOCAL
    { type: 1, value: bytes }, // IFA_ADDRESS
  ];
  requestNetlink(
    parts,
    `${type === message.newAddress ? 'add' : 'remove'} address ${text}`,
    type,
    type === message.newAddress ? createFlags : 0,
    new Uint8Array(body.buffer),
    attributes,
  );
}

function addRoute(parts: Parts, index: number, destination: string, gateway: string | undefined): void {
  const { bytes, length } = parsePrefix(destination);
  const via = gateway === undefined ? undefined : parseAddress(gateway);
  const body = new DataView(new ArrayBuffer(12)); // rtmsg
  body.setUint8(0, familyOf(bytes));
  body.setUint8(1, length);
  body.setUint8(4, 254); // RT_TABLE_MAIN
  body.setUint8(5, 4); // RTPROT_STATIC
  body.setUint8(6, via === undefined ? scopeLink : scopeUniverse);
  body.setUint8(7, 1); // RTN_UNICAST
  body.setUint32(8, via === undefined ? 0 : onLinkFlag, true);
  const attributes = [
    ...(length === 0 ? [] : [{ type: 1, value: bytes }]), // RTA_DST
    { type: 4, value: u32(index) }, // RTA_OIF
    ...(via === undefined ? [] : [{ type: 5, value: via }]), // RTA_GATEWAY
  ];
  requestNetlink(
    parts,
    `add route ${destination}`,
    message.newRoute,
    createFlags,
    new Uint8Array(body.buffer),
    attributes,
  );
}

const familyOf = (bytes: Uint8Array): number => (bytes.length === 4 ? familyIpv4 : familyIpv6);

function zeroTerminated(name: string): Uint8Array {
  return Uint8Array.from({ length: name.length + 1 }, (_, at) => name.charCodeAt(at) || 0); // the wire allows ASCII only
}
