/** An address without its prefix length. */
export const bareAddress = (address: string): string => address.replace(/\/\d+$/, '');
