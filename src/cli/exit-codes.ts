/** Exit code of a command line that podvm does not understand. */
export const usageErrorCode = 2;
/** Exit code of a command that failed, as docker's and podman's. */
export const failureCode = 125;
