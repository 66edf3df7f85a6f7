export type SeccompProfile =
  | { readonly kind: 'runtimeDefault' }
  | { readonly kind: 'unconfined' }
  | { readonly kind: 'localhost'; readonly profile: unknown };

export interface ContainerSecurity {
  readonly privileged: boolean;
  readonly runAsUser?: number;
  /** Name of a user in the image; `runAsUser` takes precedence. */
  readonly runAsUserName?: string;
  readonly runAsGroup?: number;
  readonly runAsNonRoot: boolean;
  readonly supplementalGroups: readonly number[];
  /** `strict`: without the groups that the image gives its user. Default `merge`. */
  readonly supplementalGroupsPolicy?: 'merge' | 'strict';
  readonly readOnlyRootFilesystem: boolean;
  readonly allowPrivilegeEscalation: boolean;
  readonly addCapabilities: readonly string[];
  readonly dropCapabilities: readonly string[];
  /** Capabilities that are added, and that a non-root user keeps when it runs a program. */
  readonly ambientCapabilities?: readonly string[];
  readonly seccomp: SeccompProfile;
  /** `Unmasked` leaves /proc unrestricted. */
  readonly procMount: 'Default' | 'Unmasked';
  /** Replaces the paths that `procMount` implies. */
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
}
