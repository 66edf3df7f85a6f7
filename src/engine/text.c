/* UTF-8 and base64. QuickJS has no TextEncoder and lets lone surrogates through in both directions. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Finds an encoded surrogate (ED A0..BF xx), which is not UTF-8. U+FFFD has the same length. */
static bool find_surrogate(const uint8_t *bytes, size_t length, size_t *at)
{
    for (size_t i = *at; i + 2 < length; i++) {
        if (bytes[i] == 0xed && bytes[i + 1] >= 0xa0 && bytes[i + 1] <= 0xbf && (bytes[i + 2] & 0xc0) == 0x80) {
            *at = i;
            return true;
        }
    }
    return false;
}

static void replace_surrogates(uint8_t *bytes, size_t length)
{
    for (size_t at = 0; find_surrogate(bytes, length, &at); at += 3) memcpy(bytes + at, "\xef\xbf\xbd", 3);
}

JSValue give_text(JSContext *ctx, const char *text, size_t length)
{
    size_t at = 0;
    uint8_t *copy;
    JSValue result;

    if (!find_surrogate((const uint8_t *)text, length, &at)) return JS_NewStringLen(ctx, text, length);
    copy = malloc(length);
    if (!copy) return JS_ThrowOutOfMemory(ctx);
    memcpy(copy, text, length);
    replace_surrogates(copy, length);
    result = JS_NewStringLen(ctx, (const char *)copy, length);
    free(copy);
    return result;
}

static CALL(encode_utf8)
{
    CALL_START;
    size_t length;
    const char *text;
    uint8_t *copy;
    JSValue result;

    if (!JS_IsString(argv[0])) return JS_ThrowTypeError(ctx, "Cannot encode a value: not a string");
    text = JS_ToCStringLen(ctx, &length, argv[0]);
    if (!text) return JS_EXCEPTION;
    copy = malloc(length + 1);
    if (!copy) {
        JS_FreeCString(ctx, text);
        return JS_ThrowOutOfMemory(ctx);
    }
    memcpy(copy, text, length);
    JS_FreeCString(ctx, text);
    replace_surrogates(copy, length);
    result = give_bytes(ctx, copy, length);
    free(copy);
    return result;
}

static CALL(decode_utf8)
{
    CALL_START;
    uint8_t *bytes;
    size_t length;

    if (!take_slice(ctx, argv[0], argv[1], argv[2], &bytes, &length)) return JS_EXCEPTION;
    return length == 0 ? JS_NewString(ctx, "") : give_text(ctx, (const char *)bytes, length);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static CALL(encode_base64)
{
    CALL_START;
    uint8_t *bytes;
    size_t length, used = 0;
    char *text;
    JSValue result;

    if (!take_bytes(ctx, argv[0], &bytes, &length)) return JS_EXCEPTION;
    if (length > (64u << 20)) return throw_errno(ctx, EFBIG, "encode bytes", NULL);
    text = malloc((length + 2) / 3 * 4 + 1);
    if (!text) return JS_ThrowOutOfMemory(ctx);
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        text[used++] = alphabet[group >> 18];
        text[used++] = alphabet[group >> 12 & 63];
        text[used++] = left > 1 ? alphabet[group >> 6 & 63] : '=';
        text[used++] = left > 2 ? alphabet[group & 63] : '=';
    }
    result = JS_NewStringLen(ctx, text, used);
    free(text);
    return result;
}

static int base64_digit(char digit)
{
    if (digit >= 'A' && digit <= 'Z') return digit - 'A';
    if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9') return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
}

/* Returns the number of bytes, or -1. `bytes` has room for 3 for every 4 of `length`, rounded up. */
static ssize_t base64_bytes(const char *text, size_t length, uint8_t *bytes)
{
    size_t used = 0;
    uint32_t group = 0;
    int bits = 0;

    while (length > 0 && text[length - 1] == '=' && length % 4 != 1) length--;
    if (length % 4 == 1) return -1;
    for (size_t i = 0; i < length; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) return -1;
        group = (group << 6 | (uint32_t)digit) & 0xffffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes[used++] = (uint8_t)(group >> bits);
        }
    }
    return (ssize_t)used;
}

static CALL(decode_base64)
{
    CALL_START;
    size_t length;
    const char *text;
    uint8_t *bytes;
    ssize_t used;
    JSValue result;

    if (!JS_IsString(argv[0])) return JS_ThrowTypeError(ctx, "Cannot decode a value: not a string");
    text = JS_ToCStringLen(ctx, &length, argv[0]);
    if (!text) return JS_EXCEPTION;
    bytes = malloc(length / 4 * 3 + 4);
    if (!bytes) {
        JS_FreeCString(ctx, text);
        return JS_ThrowOutOfMemory(ctx);
    }
    used = base64_bytes(text, length, bytes);
    JS_FreeCString(ctx, text);
    result = used < 0 ? throw_errno(ctx, EINVAL, "decode base64", NULL) : give_bytes(ctx, bytes, (size_t)used);
    free(bytes);
    return result;
}

static const JSCFunctionListEntry calls[] = {
    JS_CFUNC_DEF("encodeUtf8", 1, encode_utf8),
    JS_CFUNC_DEF("decodeUtf8", 3, decode_utf8),
    JS_CFUNC_DEF("encodeBase64", 1, encode_base64),
    JS_CFUNC_DEF("decodeBase64", 1, decode_base64),
};
const struct call_table text_calls = {calls, COUNT(calls)};
