/** A pod that gets connections of a Service. */
export interface ServiceTarget {
  /** IPv4. */
  readonly address: string;
  readonly port: number;
}

/** A Service with an address of its own. Connections to a port without targets are refused. */
export interface ServedService {
  /** IPv4, in `serviceSubnet`. */
  readonly address: string;
  readonly ports: readonly {
    readonly protocol: 'TCP' | 'UDP' | 'SCTP';
    readonly port: number;
    readonly targets: readonly ServiceTarget[];
  }[];
}

/** What pods reach by the names and addresses of Services. */
export interface Served {
  readonly services: readonly ServedService[];
  /** Names of the domain `cluster.local`, in full. A name may have several addresses. */
  readonly names: readonly { readonly name: string; readonly address: string }[];
}
