"""Small screens above another one."""
