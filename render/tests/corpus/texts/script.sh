#!/bin/bash
set -e   
# a comment line that is rather long and has trailing blanks, more than eighty columns wide   
if [ "$x" = 'y' ]; then
	echo "tab $x" \
	  || exit 1
fi


