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

/* The end of a coroutine that returns `value`, as tp_iternext tells it: no exception at all means None. */
static inline PyObject *tg_stop_iteration(PyObject *value) {
    if (value != Py_None) {
        if (PyTuple_Check(value) || PyExceptionInstance_Check(value)) {
            PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
            if (stop) PyErr_SetObject(PyExc_StopIteration, stop);
            Py_XDECREF(stop);
        } else {
            PyErr_SetObject(PyExc_StopIteration, value);
        }
    }
    Py_DECREF(value);
    return NULL;
}
#endif
