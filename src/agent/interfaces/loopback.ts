import { again, type Descriptors, type Sockets } from '#engine/engine.ts';

type Parts = Pick<Sockets, 'openNetlink' | 'interfaceIndex'> & Pick<Descriptors, 'read' | 'write' | 'close'>;

// rtnetlink(7), netlink(7)
const RTM_NEWLINK = 16;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const NLMSG_ERROR = 2;
const IFF_UP = 1;

/** Brings `lo` up; the kernel gives it 127.0.0.1 and ::1 by itself. */
export function bringLoopbackUp(parts: Parts): void {
  const fd = parts.openNetlink('route', 0);
  try {
    const request = new DataView(new ArrayBuffer(32));
    request.setUint32(0, 32, true);
    request.setUint16(4, RTM_NEWLINK, true);
    request.setUint16(6, NLM_F_REQUEST | NLM_F_ACK, true);
    request.setUint32(8, 1, true);
    request.setInt32(20, parts.interfaceIndex('lo'), true);
    request.setUint32(24, IFF_UP, true);
    request.setUint32(28, IFF_UP, true);
    parts.write(fd, new Uint8Array(request.buffer));
    const answer = new Uint8Array(256);
    const bytes = parts.read(fd, answer); // rtnetlink answers before write returns
    const view = new DataView(answer.buffer);
    if (bytes === again || bytes < 20 || view.getUint16(4, true) !== NLMSG_ERROR || view.getInt32(16, true) !== 0) {
      throw new Error(`Cannot bring lo up: netlink answered ${view.getInt32(16, true)}`);
    }
  } finally {
    parts.close(fd);
  }
}
