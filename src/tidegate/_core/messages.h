/* What messages.pyx needs from CPython's C API and Cython has no declarations for. */
#ifndef TIDEGATE_MESSAGES_H
#define TIDEGATE_MESSAGES_H
#include <Python.h>

/* Awaiting without a method call: 3.12 and later call tp_iternext, Task and 3.11's interpreter call am_send. */
static inline void tg_set_awaitable_slots(PyTypeObject *type, void *next, void *send) {
    type->tp_iternext = (iternextfunc)next;
    type->tp_as_async->am_send = (sendfunc)send;
    PyType_Modified(type);
}

/* The same for a subclass, which has a tp_iternext of its own. */
static inline void tg_set_next_slot(PyTypeObject *type, void *next) {
    type->tp_iternext = (iternextfunc)next;
    PyType_Modified(type);
}

/* A subclass without fields is freed as its base is: a tp_dealloc of its own would tell the garbage collector of it twice. */
static inline void tg_free_as_base(PyTypeObject *type) {
    type->tp_dealloc = type->tp_base->tp_dealloc;
    PyType_Modified(type);
}

/* Ends a coroutine that returns `value` (stolen) as tp_iternext does: with no exception at all for None.
 *
 * Making a StopIteration costs as much as the rest of a receive, so one is used again and again, unless something keeps a
 * reference to it, which only tracers do, or it passed through a frame. It keeps its last value alive, so large values get
 * one of their own. */
static PyObject *tg_spare_stop = NULL;

static inline int tg_is_small(PyObject *payload) {
    if (PyUnicode_CheckExact(payload)) return PyUnicode_GET_LENGTH(payload) < 4096;
    return PyBytes_CheckExact(payload) && PyBytes_GET_SIZE(payload) < 4096;
}

static inline PyObject *tg_stop_iteration(PyObject *value, int small) {
    if (value == Py_None) {
        Py_DECREF(value);
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (small) {
        PyObject *stop = tg_spare_stop;
        if (stop == NULL || Py_REFCNT(stop) != 1 || ((PyStopIterationObject *)stop)->traceback != NULL) {
            stop = PyObject_CallNoArgs(PyExc_StopIteration);
            if (stop == NULL) {
                Py_DECREF(value);
                return NULL;
            }
            Py_XSETREF(tg_spare_stop, stop);
        }
        Py_XSETREF(((PyStopIterationObject *)stop)->value, value);
        PyErr_SetRaisedException(Py_NewRef(stop));
        return NULL;
    }
#endif
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    Py_DECREF(value);
    return NULL;
}
#endif
