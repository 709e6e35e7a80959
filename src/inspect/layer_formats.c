/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect/layer_formats.h"

#include "inspect/sorted.h"

#include <errno.h>
#include <stdlib.h>

static const char root[] = "model.";

/* Where the next "model." begins in a text, from its second byte on; empty where there is none. */
static qn_str next_part(qn_str text)
{
    const char *const at =
        text.len == 0 ? NULL : memmem(text.ptr + 1, text.len - 1, root, strlen(root));
    return at == NULL ? (qn_str){0} : (qn_str){at, text.len - (size_t)(at - text.ptr)};
}

/* What stands between the quotes of the key; nothing for one that is too long. */
static qn_str text_of(const qn_json_node *key)
{
    const size_t len = key->text.len - 2;
    return (qn_str){key->text.ptr + 1, len <= QN_EXCLUDE_PATTERN_BYTES_MAX ? len : 0};
}

/* A name is a part of a key where it begins one of these. */
static void add_name(qn_layer_formats *out, qn_layer_key key)
{
    key.is_whole = true;
    out->names[out->n_names++] = key;
    key.is_whole = false;
    for (key.text = next_part(key.text); key.text.len > 0; key.text = next_part(key.text)) {
        out->names[out->n_names++] = key;
    }
}

/* Entries of names[] that the keys make, at most. */
static size_t count_names(const qn_json_node *object)
{
    size_t n = object->n_children;
    const qn_json_node *key = object + 1;
    for (uint32_t i = 0; i < object->n_children; i++, key = qn_json_after(key + 1)) {
        for (qn_str part = next_part(text_of(key)); part.len > 0; part = next_part(part)) {
            n++;
        }
    }
    return n;
}

static int by_text(const void *a, const void *b)
{
    return qn_str_compare(((const qn_layer_key *)a)->text, ((const qn_layer_key *)b)->text);
}

qn_status qn_layer_formats_open(qn_layer_formats *out, const qn_json_node *object,
                                qn_storage (*storage_of)(const qn_json_node *weight), qn_error *err)
{
    *out = (qn_layer_formats){0};
    out->names = calloc(count_names(object) + 1, sizeof *out->names);
    out->globs = calloc(QN_EXCLUDE_PATTERNS_MAX, sizeof *out->globs);
    if (out->names == NULL || out->globs == NULL) {
        qn_layer_formats_close(out);
        return qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "layer_quant_config: no memory");
    }
    const qn_json_node *node = object + 1;
    for (uint32_t i = 0; i < object->n_children; i++, node = qn_json_after(node + 1)) {
        const qn_layer_key key = {.text = text_of(node),
                                  .place = i,
                                  .storage = storage_of(qn_json_member(node + 1, "weight"))};
        if (!qn_is_glob(key.text)) {
            add_name(out, key);
        } else if (out->n_globs < QN_EXCLUDE_PATTERNS_MAX) {
            out->globs[out->n_globs++] = key;
        } else {
            out->n_ignored++;
        }
    }
    qsort(out->names, out->n_names, sizeof *out->names, by_text);
    return QN_OK;
}

void qn_layer_formats_close(qn_layer_formats *formats)
{
    free(formats->names);
    free(formats->globs);
    *formats = (qn_layer_formats){0};
}

static bool means(qn_str key, qn_str name, bool by_substring)
{
    return by_substring && memchr(key.ptr, '*', key.len) == NULL
               ? memmem(key.ptr, key.len, name.ptr, name.len) != NULL
               : qn_glob_matches(key, name);
}

/* The one of two keys that stands first; either may be NULL. */
static const qn_layer_key *first_of(const qn_layer_key *x, const qn_layer_key *y)
{
    return x == NULL || (y != NULL && y->place < x->place) ? y : x;
}

static const qn_layer_key *find(const qn_layer_formats *f, qn_str name, bool by_substring)
{
    const qn_layer_key *found = NULL;
    size_t i = qn_sorted_place(f->names, f->n_names, sizeof *f->names, name);
    for (; i < f->n_names; i++) { /* all that begin with the name, those that equal it first */
        const qn_layer_key *const key = &f->names[i];
        if (key->text.len < name.len || memcmp(key->text.ptr, name.ptr, name.len) != 0 ||
            (key->text.len > name.len && !by_substring)) {
            break;
        }
        found = key->is_whole || by_substring ? first_of(found, key) : found;
    }
    for (i = 0; i < f->n_globs; i++) {
        if (means(f->globs[i].text, name, by_substring)) {
            return first_of(found, &f->globs[i]);
        }
    }
    return found;
}

qn_storage qn_layer_formats_find(const qn_layer_formats *formats, const qn_str *names,
                                 size_t n_names, bool by_substring)
{
    const qn_layer_key *found = NULL;
    for (size_t i = 0; i < n_names; i++) {
        if (names[i].len > 0) { /* else it is too long to be a module's */
            found = first_of(found, find(formats, names[i], by_substring));
        }
    }
    return found == NULL ? QN_STORAGE_NONE : found->storage;
}
