# `cpack` makes a Debian package of the program, its manual pages, the service and a small model.
# What belongs at fixed places is no part of `cmake --install`.
set(QN_PACKAGE_CONTACT "Quern <quern@localhost>" CACHE STRING "Who answers for the package")
set(service COMPONENT service EXCLUDE_FROM_ALL)
install(FILES deploy/quern.json DESTINATION /etc/quern ${service})
install(FILES deploy/quern.service DESTINATION /usr/lib/systemd/system ${service})
list(TRANSFORM man_pages APPEND .gz OUTPUT_VARIABLE packed_man_pages)
install(FILES ${packed_man_pages} DESTINATION /usr/share/man/man1 ${service})
configure_file(deploy/debian/changelog.in changelog @ONLY)
execute_process(COMMAND gzip -9 -n -f ${PROJECT_BINARY_DIR}/changelog COMMAND_ERROR_IS_FATAL ANY)
install(FILES ${PROJECT_BINARY_DIR}/changelog.gz deploy/debian/copyright CHANGELOG.md README.md DESTINATION /usr/share/doc/quern ${service})
install(FILES deploy/prometheus.yml deploy/alerts.yml deploy/grafana.json
  DESTINATION /usr/share/doc/quern/examples ${service})
install(DIRECTORY docs DESTINATION /usr/share/doc/quern ${service})
install(DIRECTORY models/glm-nano DESTINATION /usr/share/quern/models ${service})

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME quern)
set(CPACK_PACKAGE_CONTACT ${QN_PACKAGE_CONTACT})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "server for GLM-5 family language models")
set(CPACK_PACKAGE_DESCRIPTION "Quern runs GLM-5, GLM-5.1 and GLM-5.2 from their published checkpoints
and answers over the APIs of OpenAI and Anthropic.
The service comes with a small model, so that it answers once it is installed.")
set(CPACK_INSTALL_CMAKE_PROJECTS
  "${PROJECT_BINARY_DIR};quern;program;/;${PROJECT_BINARY_DIR};quern;service;/")
set(CPACK_SET_DESTDIR ON) # for the fixed places
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS systemd)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS gnuplot-nox) # plots of reports
set(CPACK_DEBIAN_COMPRESSION_TYPE gzip)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA "")
foreach(file postinst prerm postrm conffiles)
  list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/deploy/debian/${file})
endforeach()
include(CPack)
