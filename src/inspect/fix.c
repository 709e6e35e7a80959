/* SPDX-License-Identifier: Apache-2.0 */
/* config.fixed.json: the text of config.json, but for the list of modules that are not quantized.
 * Entries that mean nothing stay, since they harm nobody and may be another engine's names. */
#include "base/file.h"
#include "base/try.h"
#include "inspect/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIXED_BYTES_MAX = 64 << 20 };

static const char fixed_name[] = "config.fixed.json";

/* White space that stands before each item of the list, and before its end. */
typedef struct layout {
    qn_str before_item, before_end;
} layout;

/* White space in front of @p at, which lies in @p text. */
static qn_str space_before(qn_str text, const char *at)
{
    const char *begin = at;
    while (begin > text.ptr && strchr(" \t\r\n", begin[-1]) != NULL) {
        begin--;
    }
    return (qn_str){begin, (size_t)(at - begin)};
}

static layout layout_of(const qn_json_node *list, qn_str text)
{
    layout l = {.before_item = {" ", 1}};
    if (list->n_children > 0) {
        const char *const end = list->text.ptr + list->text.len - 1;
        l.before_item = space_before(text, list[1].text.ptr);
        l.before_end = space_before(text, end);
    }
    return l;
}

/* Comma and white space. */
static qn_status begin_item(qn_buf *out, const layout *l, bool *is_first, qn_error *err)
{
    const qn_status status = qn_buf_append(out, ",", *is_first ? 0 : 1, err);
    *is_first = false;
    return status < 0 ? status : qn_buf_append(out, l->before_item.ptr, l->before_item.len, err);
}

/* Does a list of names have the one that a string stands for?  @p room is for its bytes. */
static qn_status look_up(bool *is_there, const qn_exclude *names, const qn_json_node *item,
                         qn_buf *room, qn_error *err)
{
    *is_there = false;
    qn_buf_clear(room);
    if (item->kind != QN_JSON_STRING) {
        return QN_OK;
    }
    const qn_status status = qn_json_string_append(room, item, err);
    *is_there = status == QN_OK && qn_exclude_equals(names, qn_buf_view(room));
    return status;
}

/* The entries that stay. */
static qn_status append_kept(qn_buf *out, const qn_json_node *list, const layout *l,
                             const qn_exclude *removed, bool *is_first, qn_error *err)
{
    qn_status status = QN_OK;
    bool is_removed = false;
    qn_buf room;
    qn_buf_init(&room, list->text.len);
    const qn_json_node *item = list + 1;
    for (uint32_t i = 0; i < list->n_children && status == QN_OK; i++) {
        status = look_up(&is_removed, removed, item, &room, err);
        if (status == QN_OK && !is_removed) {
            status = begin_item(out, l, is_first, err);
            status = status < 0 ? status : qn_buf_append(out, item->text.ptr, item->text.len, err);
        }
        item = qn_json_after(item);
    }
    qn_buf_deinit(&room);
    return status;
}

/* "[", the entries that stay, the new ones, "]". */
static qn_status append_list(qn_buf *out, const qn_json_node *list, const layout *l,
                             const qn_name_changes *changes, qn_error *err)
{
    qn_status status = QN_OK;
    bool is_first = true;
    QN_TRY(status, qn_buf_append(out, "[", 1, err), fail);
    QN_TRY(status, append_kept(out, list, l, &changes->removed, &is_first, err), fail);
    for (size_t i = 0; i < changes->added.n_names; i++) {
        QN_TRY(status, begin_item(out, l, &is_first, err), fail);
        QN_TRY(status, qn_json_quote_append(out, changes->added.names[i], err), fail);
    }
    QN_TRY(status, qn_buf_append(out, l->before_end.ptr, l->before_end.len, err), fail);
    status = qn_buf_append(out, "]", 1, err);
fail:
    return status;
}

/* The text with the list in the place of what its key has, or as the first member. */
static qn_status compose(qn_buf *out, const qn_doctor *d, qn_error *err)
{
    static const qn_json_node none = {.kind = QN_JSON_ARRAY};
    const qn_declared *const said = &d->declared;
    const qn_str text = qn_buf_view(&d->config_text);
    const qn_json_node *const old = qn_json_member(said->root, said->list_key);
    const qn_json_node *const list = said->list != NULL ? said->list : &none;
    const layout l = layout_of(list, text);
    const char *const head_end = old != NULL ? old->text.ptr : said->root->text.ptr + 1;
    const char *const tail = old != NULL ? old->text.ptr + old->text.len : head_end;
    qn_status status = QN_OK;
    QN_TRY(status, qn_buf_append(out, text.ptr, (size_t)(head_end - text.ptr), err), fail);
    if (old == NULL) {
        QN_TRY(status, qn_buf_append_printf(out, err, "\"%s\": ", said->list_key), fail);
    }
    QN_TRY(status, append_list(out, list, &l, &d->changes, err), fail);
    if (old == NULL) { /* quant_method follows: without it there is no list to mend */
        QN_TRY(status, qn_buf_append(out, ",", 1, err), fail);
    }
    status = qn_buf_append(out, tail, (size_t)(text.ptr + text.len - tail), err);
fail:
    return status;
}

/* Is @p path, which exists, a file of these bytes? */
static qn_status compare(const char *path, qn_str bytes, qn_error *err)
{
    qn_buf text;
    qn_buf_init(&text, bytes.len + 1); /* one more is read as a file that is longer */
    qn_status status = qn_file_read(&text, path, err);
    if (status != QN_E_NOMEM && (status < 0 || !qn_str_equal(qn_buf_view(&text), bytes))) {
        status = qn_fail(err, QN_E_IO, EEXIST, __func__,
                         "%s: %s, no file of this name, or one of the same contents, expected",
                         path, strerror(EEXIST));
    }
    qn_buf_deinit(&text);
    return status;
}

static qn_status cannot_write(const char *path, qn_error *err)
{
    return qn_fail(err, QN_E_IO, errno, "qn_doctor_fix",
                   "%s: cannot write: %s, room for it expected", path, strerror(errno));
}

/* Give the file a name that no other has.  Where the system knows no such call, a hard link does
 * it. */
static bool give_name(const char *part, const char *path)
{
    return renameat2(AT_FDCWD, part, AT_FDCWD, path, RENAME_NOREPLACE) == 0 ||
           ((errno == EINVAL || errno == ENOSYS) && link(part, path) == 0);
}

/* The folder's names are on the disk. */
static bool sync_names(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* some need none */
    if (fd >= 0) {
        (void)close(fd);
    }
    return is_synced;
}

/* Give the bytes the name @p path in @p dir, whole or not at all, and take it from no other file.
 * @p part is a name for them until then. */
static qn_status publish(const char *dir, const char *path, const char *part, qn_str bytes,
                         qn_error *err)
{
    qn_status status = QN_OK;
    const int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        return cannot_write(part, err);
    }
    status = qn_write_at(fd, bytes.ptr, bytes.len, 0, path, err);
    if (status == QN_OK && fsync(fd) != 0) {
        status = cannot_write(path, err);
    }
    if (status == QN_OK && !give_name(part, path)) {
        status = errno == EEXIST ? compare(path, bytes, err) : cannot_write(path, err);
    } else if (status == QN_OK && !sync_names(dir)) {
        status = cannot_write(path, err);
    }
    (void)close(fd);
    (void)unlink(part); /* gone, where it was renamed */
    return status;
}

qn_status qn_doctor_fix(qn_doctor *d, qn_error *err)
{
    char part_name[64];
    qn_status status = QN_OK;
    qn_buf text;
    qn_buf_init(&text, FIXED_BYTES_MAX);
    if (d->changes.added.n_names + d->changes.removed.n_names == 0) {
        return QN_OK;
    }
    (void)snprintf(part_name, sizeof part_name, "%s.%d.part", fixed_name, (int)gettid());
    char *path = qn_path_join(d->request->dir, fixed_name);
    char *const part = qn_path_join(d->request->dir, part_name);
    if (path == NULL || part == NULL) {
        status = qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "%s: no memory", fixed_name);
        goto fail;
    }
    QN_TRY(status, compose(&text, d, err), fail);
    QN_TRY(status, publish(d->request->dir, path, part, qn_buf_view(&text), err), fail);
    d->fixed_path = path;
    path = NULL; /* taken */
fail:
    qn_buf_deinit(&text);
    free(path);
    free(part);
    return status;
}
