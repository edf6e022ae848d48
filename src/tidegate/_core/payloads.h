/* Memory of large payloads that is used again, for parser.pyx. The C library gives memory of this size back to the system
 * when it is freed, and each page that is taken anew costs a fault, which is a fifth of what an echo of 1 MiB takes.
 * A payload that is complete is remembered here; once no other reference is left, its memory is that of the next one of
 * about its size.
 * All of it happens with the GIL held. What must not live here: small payloads, which malloc() has at hand. */
#ifndef TIDEGATE_PAYLOADS_H
#define TIDEGATE_PAYLOADS_H
#include <Python.h>

#define TG_LARGE (1 << 17) /* as M_MMAP_THRESHOLD of glibc */
#define TG_LARGEST (1 << 20)
#define TG_PAYLOADS 8

static struct {
    PyObject *bytes;
    Py_ssize_t room; /* that it was allocated with: it may be shorter now */
} tg_payloads[TG_PAYLOADS];
static unsigned tg_payload_next;

/* Remembers a payload, in the place of one that was taken, or of each in turn. */
static inline void tg_payload_keep(PyObject *bytes, Py_ssize_t room) {
    int i = 0;
    while (i < TG_PAYLOADS && tg_payloads[i].bytes) i++;
    if (i == TG_PAYLOADS) i = tg_payload_next++ % TG_PAYLOADS;
    PyObject *before = tg_payloads[i].bytes;
    tg_payloads[i].bytes = Py_NewRef(bytes);
    tg_payloads[i].room = room;
    Py_XDECREF(before);
}

/* A new bytes object of this size, and how long it might be. */
static inline PyObject *tg_payload_new(Py_ssize_t size, Py_ssize_t *room) {
    for (int i = 0; i < TG_PAYLOADS && size >= TG_LARGE; i++) {
        PyObject *bytes = tg_payloads[i].bytes;
        if (bytes && Py_REFCNT(bytes) == 1 && tg_payloads[i].room >= size && tg_payloads[i].room / 2 <= size) {
            tg_payloads[i].bytes = NULL;
            *room = tg_payloads[i].room;
            Py_SET_SIZE(bytes, size);
            _Py_COMP_DIAG_PUSH _Py_COMP_DIAG_IGNORE_DEPR_DECLS
            ((PyBytesObject *)bytes)->ob_shash = -1; /* which may have been asked for */
            _Py_COMP_DIAG_POP
            PyBytes_AS_STRING(bytes)[size] = 0;
            return bytes;
        }
    }
    *room = size;
    return PyBytes_FromStringAndSize(NULL, size);
}
#endif
