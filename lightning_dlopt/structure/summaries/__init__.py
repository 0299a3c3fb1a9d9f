"""What a module needs: parameters, multiply-adds, bytes, time."""
