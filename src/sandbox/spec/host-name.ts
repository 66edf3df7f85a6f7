/** Makes a host name of a pod's name: RFC 1123's characters, at most 63. */
export function hostNameOf(podName: string): string {
  const label = podName
    .replaceAll(/[^A-Za-z0-9-]/g, '-')
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, '');
  return label === '' ? 'pod' : label;
}
