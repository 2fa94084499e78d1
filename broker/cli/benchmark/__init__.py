"""The load of `broker bench`: raw sockets that hide nothing, so that what is lost or out of order is seen."""
