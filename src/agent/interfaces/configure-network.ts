import { PodvmError } from '#base/errors.ts';
import type { NetworkConfig } from '#wire/pod-params.ts';
import type { Files } from '#engine/engine.ts';
import { parseAddress, parsePrefix } from './ip-address.ts';
import type { Children } from '../process/children.ts';
import {
  createFlags,
  message,
  requestNetlink,
  requestNetlinkAside,
  u32,
  type Attribute,
  type NetlinkParts,
  type NetlinkRequest,
} from './rtnetlink.ts';

type Parts = NetlinkParts & Pick<Files, 'list'>;

const [familyIpv4, familyIpv6] = [2, 10];
const interfaceUp = 1;
const noDuplicateDetection = 0x02; // IFA_F_NODAD: the host has chosen the address, and detection takes a second
const [scopeUniverse, scopeLink] = [0, 253];
const onLinkFlag = 4; // RTNH_F_ONLINK: a gateway outside the interface's own subnet, as with /32 addresses

/** The machine's only NIC. */
export class Nic {
  readonly #parts: Parts;
  readonly #children: Pick<Children, 'wait'>;
  #last: NetworkConfig | undefined;
  /** Its name, once known: /sys only shows the NICs of the namespace in which it was mounted. */
  #name: string | undefined;

  constructor(parts: Parts, children: Pick<Children, 'wait'>) {
    this.#parts = parts;
    this.#children = children;
  }

  /**
   * Applies the host's network configuration, and removes that of an earlier call.
   * Errors: `unsupported`, `invalid`, `failedPrecondition`.
   */
  async configure(network: NetworkConfig): Promise<void> {
    const [wanted, ...more] = network.interfaces;
    const index = (name: string) => this.#parts.interfaceIndex(name);
    const [last] = this.#last?.interfaces ?? [];
    if (last !== undefined) requestNetlink(this.#parts, withdrawn(index(last.name), last.addresses));
    this.#last = network;
    if (more.length > 0) throw new PodvmError('unsupported', 'Cannot configure the network: a machine has one NIC');
    const nic = this.#find();
    if (wanted !== undefined && nic === undefined) {
      throw new PodvmError('failedPrecondition', 'Cannot configure the network: there is no NIC');
    }
    const given = wanted === undefined || nic === undefined ? [] : configured(index(nic), nic, wanted, network.routes);
    if (given.length > 0) await requestNetlinkAside(this.#parts, this.#children, given);
    this.#name = wanted?.name ?? this.#name;
  }

  /**
   * Moves the NIC to the network namespace of a process, where it has no address or route. Does nothing without a NIC.
   */
  moveTo(pid: number): void {
    this.#name = this.#find();
    this.#last = undefined;
    if (this.#name === undefined) return;
    const index = this.#parts.interfaceIndex(this.#name);
    requestNetlink(this.#parts, [setLink(index, 0, [{ type: 19, value: u32(pid) }])]); // IFLA_NET_NS_PID
  }

  #find(): string | undefined {
    return this.#name ?? this.#parts.list('/sys/class/net').find((name) => name !== 'lo');
  }
}

/** Removes addresses and takes the link down, which also removes routes. */
function withdrawn(index: number, addresses: readonly string[]): NetlinkRequest[] {
  return [...addresses.map((address) => changeAddress(message.deleteAddress, index, address)), setLink(index, 0, [])];
}

function configured(
  index: number,
  nic: string,
  wanted: NetworkConfig['interfaces'][number],
  routes: NetworkConfig['routes'],
): NetlinkRequest[] {
  return [
    // The kernel takes flags last (do_setlink): a NIC that is up keeps its name.
    setLink(index, interfaceUp, [
      { type: 1, value: new Uint8Array(wanted.mac.split(':').map((byte) => Number.parseInt(byte, 16))) }, // IFLA_ADDRESS
      { type: 4, value: u32(wanted.mtu) }, // IFLA_MTU
      ...(nic === wanted.name ? [] : [{ type: 3, value: zeroTerminated(wanted.name) }]), // IFLA_IFNAME
    ]),
    ...wanted.addresses.map((address) => changeAddress(message.newAddress, index, address)),
    ...routes.map(({ destination, gateway }) => addRoute(index, destination, gateway)),
  ];
}

function setLink(index: number, flags: number, attributes: readonly Attribute[]): NetlinkRequest {
  const body = new DataView(new ArrayBuffer(16)); // ifinfomsg
  body.setInt32(4, index, true);
  body.setUint32(8, flags, true);
  body.setUint32(12, flags, true);
  return {
    what: 'set up the NIC',
    type: message.newLink,
    flags: 0,
    body: new Uint8Array(body.buffer),
    attributes,
  };
}

function changeAddress(type: number, index: number, text: string): NetlinkRequest {
  const { bytes, length } = parsePrefix(text);
  const body = new DataView(new ArrayBuffer(8)); // ifaddrmsg
  body.setUint8(0, familyOf(bytes));
  body.setUint8(1, length);
  body.setUint8(2, bytes.length === 16 ? noDuplicateDetection : 0);
  body.setUint32(4, index, true);
  const isNew = type === message.newAddress;
  return {
    what: `${isNew ? 'add' : 'remove'} address ${text}`,
    type,
    flags: isNew ? createFlags : 0,
    body: new Uint8Array(body.buffer),
    attributes: [
      { type: 2, value: bytes }, // IFA_LOCAL
      { type: 1, value: bytes }, // IFA_ADDRESS
    ],
  };
}

function addRoute(index: number, destination: string, gateway: string | undefined): NetlinkRequest {
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
  return {
    what: `add route ${destination}`,
    type: message.newRoute,
    flags: createFlags,
    body: new Uint8Array(body.buffer),
    attributes: [
      ...(length === 0 ? [] : [{ type: 1, value: bytes }]), // RTA_DST
      { type: 4, value: u32(index) }, // RTA_OIF
      ...(via === undefined ? [] : [{ type: 5, value: via }]), // RTA_GATEWAY
    ],
  };
}

const familyOf = (bytes: Uint8Array): number => (bytes.length === 4 ? familyIpv4 : familyIpv6);

function zeroTerminated(name: string): Uint8Array {
  return Uint8Array.from({ length: name.length + 1 }, (_, at) => name.charCodeAt(at) || 0); // the wire allows ASCII only
}
