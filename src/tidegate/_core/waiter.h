/* What waiter.pyx does to futures of asyncio, without looking anything up: their getters and setters are called as they are.
 * What must not live here: when. */
#ifndef TIDEGATE_WAITER_H
#define TIDEGATE_WAITER_H
#include <Python.h>

static PyGetSetDef *tg_callbacks_of, *tg_blocking_of;
static PyObject *tg_remove;

static inline PyGetSetDef *tg_getset(PyObject *type, const char *name) {
    PyObject *found = PyObject_GetAttrString(type, name);
    if (found && Py_TYPE(found) != &PyGetSetDescr_Type) {
        PyErr_Format(PyExc_ImportError, "%s of asyncio.Future is not an attribute in C", name);
        Py_CLEAR(found);
    }
    return found ? ((PyGetSetDescrObject *)found)->d_getset : NULL; /* it stays, as the type does */
}

static inline int tg_know_futures(PyObject *type) {
    tg_callbacks_of = tg_getset(type, "_callbacks");
    tg_blocking_of = tg_callbacks_of ? tg_getset(type, "_asyncio_future_blocking") : NULL;
    tg_remove = tg_blocking_of ? PyObject_GetAttrString(type, "remove_done_callback") : NULL;
    return tg_remove ? 0 : -1;
}

/* A task is about to wait for it. */
static inline int tg_set_blocking(PyObject *future) {
    return tg_blocking_of->set(future, Py_True, tg_blocking_of->closure);
}

/* What is to be called: a list of (callback, context); None if it is nothing, or if the future is done. */
static inline PyObject *tg_callbacks(PyObject *future) {
    return tg_callbacks_of->get(future, tg_callbacks_of->closure);
}

static inline PyObject *tg_remove_callback(PyObject *future, PyObject *callback) {
    PyObject *arguments[] = {future, callback};
    return PyObject_Vectorcall(tg_remove, arguments, 2, NULL);
}
#endif
